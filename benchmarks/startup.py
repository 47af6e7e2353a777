"""Time to import, to --help, and from load to the first token of an eight-token prompt.

    python benchmarks/startup.py BUNDLE

Each in a fresh process; the bundle has been opened before, so its hashes are stamped and what is
kept of its sessions is there. Beside it the parts of `load`, with and without what is kept.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from measuring import interleaved, record, spread

from tightrope.state import STAMP, state_folder

FIRST_TOKEN = """
import sys, tightrope
model = tightrope.load(sys.argv[1])
model.generate([5, 7, 8, 9, 10, 21, 25, 6], max_tokens=1, ignore_eos=True)
"""
PARTS = """
import json, sys, time
marks = [time.perf_counter()]
def mark(): marks.append(time.perf_counter())
import tightrope.runtime.model, tightrope.runtime.backends.onnxruntime
from tightrope.bundle import Bundle
from tightrope.runtime.backends import create_backend
from tightrope.runtime.loaded import Loaded
mark()
bundle = Bundle.open(sys.argv[1])
mark()
backend = create_backend("onnxruntime", bundle)
mark()
Loaded(bundle, backend, time.perf_counter)
mark()
names = ("imports", "checking files", "session", "tokenizer and the rest")
print(json.dumps({name: 1e3 * (b - a) for name, a, b in zip(names, marks, marks[1:])}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("--repetitions", type=int, default=9)
    arguments = parser.parse_args()

    def run(*command: str) -> None:
        subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)

    times = interleaved(
        {
            "python itself": lambda: run("-c", "pass"),
            "import tightrope": lambda: run("-c", "import tightrope"),
            "tightrope --help": lambda: run("-m", "tightrope", "--help"),
            "load and first token": lambda: run("-c", FIRST_TOKEN, arguments.bundle),
        },
        arguments.repetitions,
    )
    parts: dict[str, list[dict[str, float]]] = {"kept": [], "nothing kept": []}
    for _ in range(arguments.repetitions):
        for name, rows in parts.items():
            rows.append(taken_apart(arguments.bundle, kept=name == "kept"))
    record(
        "startup",
        {
            "unit": "ms",
            **{name: spread(value) for name, value in times.items()},
            "load": {
                name: {part: spread([row[part] for row in rows]) for part in rows[0]}
                for name, rows in parts.items()
            },
        },
    )


def taken_apart(bundle: str, kept: bool) -> dict[str, float]:
    """Milliseconds of the parts of `load` in a fresh process.

    kept: False opens the bundle's own graph, its files' stamp alone is there.
    """
    environment = dict(os.environ)
    with tempfile.TemporaryDirectory() as empty:
        if not kept:
            stamp = (state_folder(Path(bundle)) / STAMP).read_bytes()
            (Path(empty) / STAMP).write_bytes(stamp)
            (Path(empty) / "sessions").touch()  # a file where the folder would be
            environment["TIGHTROPE_STATE"] = empty
        result = subprocess.run(
            [sys.executable, "-c", PARTS, bundle],
            check=True,
            capture_output=True,
            text=True,
            env=environment,
        )
    parts: dict[str, float] = json.loads(result.stdout)
    return parts


if __name__ == "__main__":
    main()
