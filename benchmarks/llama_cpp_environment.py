"""llama.cpp beside us, in its environment: what it answers."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import peer_environments

ROOT = peer_environments.HERE.parent
PEER = peer_environments.PEERS["llama.cpp"]


def make() -> Path:
    """Its interpreter; compiles the package the first time, some minutes."""
    return peer_environments.interpreter(PEER)


def is_made() -> bool:
    """Whether its environment is there already."""
    return (peer_environments.CACHE / PEER.name / "requirements.json").exists()


def version() -> str:
    return peer_environments.version(PEER)


def ask(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What llama.cpp answers to the jobs of `llama_cpp_peer.py`; logits are arrays."""
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = Path(folder) / "jobs.json", Path(folder) / "answers.json"
        asked.write_text(json.dumps(jobs), encoding="utf-8")
        peer = Path(__file__).with_name("llama_cpp_peer.py")
        command = [str(make()), str(peer), str(asked), str(answered)]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode:
            raise RuntimeError(f"llama.cpp failed: {result.stderr[-800:]}")
        answers: list[dict[str, Any]] = json.loads(answered.read_text(encoding="utf-8"))
        for answer in answers:
            if answer["logits"]:
                answer["logits"] = np.load(answered.parent / answer["logits"])
        return answers
