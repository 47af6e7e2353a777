"""A load generator of others against a real server: is AIPerf, as it comes, served to its end?

    python benchmarks/serving_load.py reference.bundle tests/data/scenes

Its own figures of a streamed run with pictures. It exits with 1 if a request failed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import aiperf_environment
from measuring import record
from serving import server

import tightrope as tr
from tightrope.profiles.task.task import read_task

ROOT = Path(__file__).resolve().parent.parent
TOKENIZER = "tightrope/reference"
"""AIPerf wants one of a hub, though it counts the tokens that the server tells."""
TOKENS = 8
FIGURES = (
    "request_count",
    "error_request_count",
    "request_throughput",
    "request_latency",
    "time_to_first_token",
    "inter_token_latency",
    "output_sequence_length",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("task", type=Path)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--concurrency", type=int, default=4)
    given = parser.parse_args()
    command = aiperf_environment.make()
    # To AIPerf an answer without text is an error: none may end before its last token.
    ends = tr.load(given.bundle, live=False)._loaded.language.ends
    bias = {str(end): -100 for end in ends}
    with tempfile.TemporaryDirectory() as name, server(str(given.bundle)) as port:
        folder = Path(name)
        questions = folder / "questions.jsonl"
        questions.write_text("".join(lines(given.task)), encoding="utf-8")
        arguments = {
            "model": given.bundle.resolve().name.removesuffix(".bundle"),
            "url": f"http://127.0.0.1:{port}",
            "endpoint-type": "chat",
            "input-file": str(questions),
            "custom-dataset-type": "single_turn",
            "tokenizer": TOKENIZER,
            "extra-inputs": json.dumps({"max_completion_tokens": TOKENS, "logit_bias": bias}),
            "concurrency": str(given.concurrency),
            "request-count": str(given.requests),
            "random-seed": "0",
            "artifact-dir": str(folder / "artifacts"),
            "ui": "none",
        }
        options = [part for name, value in arguments.items() for part in (f"--{name}", value)]
        result = subprocess.run(
            [str(command), "profile", "--streaming", "--use-server-token-count", *options],
            env={**os.environ, "HF_HOME": str(hub(folder)), "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
        )
        if result.returncode:
            raise SystemExit(f"AIPerf failed: {result.stdout[-2000:]}{result.stderr[-2000:]}")
        (file,) = (folder / "artifacts").rglob("profile_export_aiperf.json")
        told: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    figures = {name: told[name] for name in FIGURES if told.get(name)}
    record("serving_load", {"aiperf": aiperf_environment.REQUIREMENT, **figures})
    done = told["request_count"]["avg"]
    sys.exit(done != given.requests or bool(told.get("error_request_count")))


def hub(folder: Path) -> Path:
    """What a hub would have left of the reference model's tokenizer, so that none is asked."""
    repository = folder / "hub" / f"models--{TOKENIZER.replace('/', '--')}"
    snapshot = repository / "snapshots" / ("0" * 40)
    shutil.copytree(
        ROOT / "models" / "reference", snapshot, ignore=shutil.ignore_patterns("*.safetensors")
    )
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40, encoding="utf-8")
    return folder


def lines(task: Path) -> list[str]:
    """A task's questions as AIPerf reads them."""
    return [
        json.dumps({"text": item.messages[-1]["content"], "image": str(item.images[0])}) + "\n"
        for item in read_task(task).items
        if item.images
    ]


if __name__ == "__main__":
    main()
