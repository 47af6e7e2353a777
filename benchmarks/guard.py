"""Did a commit make a stage slower? Two commits in turn, stage by stage; exits with 1 if one did.

    python benchmarks/guard.py BEFORE [AFTER] [--checkpoint FOLDER_OR_GGUF --precision NAME]

A commit is anything that git knows; AFTER is the working tree unless it is named. Each side exports
the checkpoint with its own code and answers in a process of its own. A stage is slower where the
95 % interval of the ratio of medians, paired by round, lies above 1.05. What is exported is kept in
`.cache/guard` by commit; the working tree's is made anew.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from measuring import record, spread

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "guard"
WORKING_TREE = "working tree"
SLOWER = 1.05
RESAMPLES = 4000
Times = dict[str, float]
"""Milliseconds by stage."""


class Side:
    """One commit's process, which waits to be asked."""

    def __init__(self, source: Path, bundle: Path, threads: int) -> None:
        program = Path(__file__).with_name("guard_side.py")
        self._process = subprocess.Popen(
            [sys.executable, str(program), str(bundle), str(threads)],
            env=environment(source),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def times(self) -> Times:
        """Of one round."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write("round\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("one side ended before it answered; its words stand above")
        times: Times = json.loads(line)
        return times

    def end(self) -> None:
        self._process.terminate()
        self._process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before")
    parser.add_argument("after", nargs="?", default=WORKING_TREE)
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "models" / "reference")
    parser.add_argument("--precision", default="fp16")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    rounds: dict[str, list[Times]] = {"before": [], "after": []}
    with ExitStack() as stack:
        sides = {
            name: stack.enter_context(
                side(commit, given.checkpoint, given.precision, given.threads)
            )
            for name, commit in (("before", given.before), ("after", given.after))
        }
        for number in range(given.rounds + 1):
            # Who goes second finds the machine as the first one left it: they take turns.
            for name in sorted(sides, reverse=number % 2 == 0):
                times = sides[name].times()
                if number:  # the first round warms up
                    rounds[name].append(times)
    stages = {stage: compared(rounds, stage) for stage in rounds["before"][0]}
    slower = [stage for stage, row in stages.items() if row["slower"]]
    record(
        "guard",
        {
            "before": name_of(given.before),
            "after": name_of(given.after),
            "threads": given.threads,
            "unit": "ms",
            "stages": stages,
            "slower": slower,
        },
    )
    sys.exit(bool(slower))


@contextmanager
def side(commit: str, checkpoint: Path, precision: str, threads: int) -> Iterator[Side]:
    """The process of one commit."""
    source, made = ROOT, CACHE / "tree"
    if commit == WORKING_TREE:
        shutil.rmtree(made, ignore_errors=True)
    else:
        made = CACHE / name_of(commit)
        source = made / "source"
        if not source.is_dir():
            unpack(commit, source)
    bundle = made / f"{checkpoint.stem}-{precision}.bundle"
    if not bundle.is_dir():
        command = [sys.executable, "-m", "tightrope", "export", str(checkpoint.resolve())]
        command += ["-o", str(bundle), "--precision", precision]
        bundle.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(command, check=True, env=environment(source), stdout=subprocess.DEVNULL)
    running = Side(source, bundle, threads)
    try:
        yield running
    finally:
        running.end()


def unpack(commit: str, folder: Path) -> None:
    """The files of a commit."""
    archive = subprocess.Popen(
        ["git", "-C", str(ROOT), "archive", commit, "tightrope"], stdout=subprocess.PIPE
    )
    partial = folder.with_name("partial")
    shutil.rmtree(partial, ignore_errors=True)
    with tarfile.open(fileobj=archive.stdout, mode="r|") as files:
        files.extractall(partial, filter="data")
    if archive.wait():
        raise SystemExit(f"git knows no commit {commit!r}")
    partial.rename(folder)


def name_of(commit: str) -> str:
    """Short hash of a commit."""
    if commit == WORKING_TREE:
        return commit
    command = ["git", "-C", str(ROOT), "rev-parse", "--short=12", f"{commit}^{{commit}}"]
    found = subprocess.run(command, capture_output=True, text=True)
    if found.returncode:
        raise SystemExit(f"git knows no commit {commit!r}")
    return found.stdout.strip()


def environment(source: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(source)}


def compared(rounds: dict[str, list[Times]], stage: str) -> dict[str, Any]:
    """One stage of both sides, and the 95 % interval of their ratio by a paired bootstrap."""
    before, after = (np.array([times[stage] for times in rounds[name]]) for name in rounds)
    ratios = np.log(after / before)
    draws = np.random.default_rng(0).integers(0, len(ratios), (RESAMPLES, len(ratios)))
    low, middle, high = np.exp(np.quantile(np.median(ratios[draws], 1), [0.025, 0.5, 0.975]))
    return {
        "before": spread(before.tolist()),
        "after": spread(after.tolist()),
        "ratio": round(float(middle), 3),
        "interval": [round(float(low), 3), round(float(high), 3)],
        "slower": bool(low > SLOWER),
    }


if __name__ == "__main__":
    main()
