"""llama.cpp beside us: an environment of its own, made once, and what it answers."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
PYTHON = ROOT / ".cache" / "llama-cpp" / "bin" / "python"
REQUIREMENT = "llama-cpp-python"


def make() -> Path:
    """Its interpreter; compiles the package the first time, some minutes."""
    if not PYTHON.exists():
        subprocess.run([sys.executable, "-m", "venv", str(PYTHON.parent.parent)], check=True)
        install = [str(PYTHON), "-m", "pip", "install", "--quiet", REQUIREMENT, "numpy"]
        subprocess.run(install, check=True)
    return PYTHON


def version() -> str:
    code = f"from importlib import metadata; print(metadata.version('{REQUIREMENT}'))"
    result = subprocess.run([str(PYTHON), "-c", code], check=True, capture_output=True, text=True)
    return result.stdout.strip()


def ask(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What llama.cpp answers to the jobs of `llama_cpp_peer.py`; logits are arrays."""
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = Path(folder) / "jobs.json", Path(folder) / "answers.json"
        asked.write_text(json.dumps(jobs), encoding="utf-8")
        peer = Path(__file__).with_name("llama_cpp_peer.py")
        command = [str(PYTHON), str(peer), str(asked), str(answered)]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode:
            raise RuntimeError(f"llama.cpp failed: {result.stderr[-800:]}")
        answers: list[dict[str, Any]] = json.loads(answered.read_text(encoding="utf-8"))
        for answer in answers:
            if answer["logits"]:
                answer["logits"] = np.load(answered.parent / answer["logits"])
        return answers
