"""How much memory and time does an export take, for real shapes with random weights?

python benchmarks/export_memory.py FOLDER [--shape text] [--precision int4]

Of the export's own process two peaks are told: what it holds itself, which no other may have, and
with it the pages of files that it has mapped, which the system takes back when they are wanted. The
runtime that opens the bundle at the end is a process of its own. Beside other work seconds are
more; processor seconds, of all threads and of that process, are not.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from measuring import record
from random_checkpoints import SHAPES, write

ALLOWED_TIMES, ALLOWED_BESIDE = 1.5, 0.6e9
"""Of the weights in float16, and beside them."""
_EVERY_S = 0.02
_EXPORT = """
import sys, time
import tightrope as tr
export = tr.export  # imports what exporting needs, before the clock begins
begun = time.perf_counter()
def progress(stage, share):
    print(f"{time.perf_counter() - begun:.2f} {stage}", flush=True)
config = tr.ExportConfig(precision=sys.argv[3])
export(sys.argv[1], sys.argv[2], config, progress=progress)
progress("ended", 1.0)
"""


class Watch:
    """What a process and its children held at most, and how long it took, by stage."""

    def __init__(self, process: int) -> None:
        self._process = process
        self._begun = 0.0
        self.stages: dict[str, dict[str, float]] = {}
        self.enter("starting", 0.0)

    def enter(self, stage: str, at: float) -> None:
        """The next stage begins, at so many seconds."""
        if self.stages:
            self._held["seconds"] += round(at - self._begun, 2)
        nothing = {"own": 0, "with_files": 0, "children": 0, "seconds": 0}
        self._held = self.stages.setdefault(stage, nothing)
        self._begun = at

    def look(self) -> None:
        """Note what is held now."""
        held = self._held
        own, mapped = _held(self._process)
        children = sum(sum(_held(child)) for child in _children(self._process))
        for name, value in (("own", own), ("with_files", own + mapped), ("children", children)):
            held[name] = max(held[name], value)

    def most(self, name: str) -> float:
        """Over all stages."""
        return max(held[name] for held in self.stages.values())


def _held(process: int) -> tuple[int, int]:
    """Bytes of its own, and of mapped files; nothing of a process that has ended."""
    found = {"RssAnon": 0, "RssShmem": 0, "RssFile": 0}
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0, 0
    for line in lines:
        name, _, value = line.partition(":")
        if name in found:
            found[name] = int(value.split()[0]) * 1024
    return found["RssAnon"] + found["RssShmem"], found["RssFile"]


def _children(process: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{process}/task").iterdir())
        found = [(task / "children").read_text(encoding="ascii").split() for task in tasks]
    except OSError:
        return []
    return [int(child) for part in found for child in part]


def measured(checkpoint: Path, bundle: Path, precision: str, size: int) -> dict[str, Any]:
    """One export; size: bytes of the checkpoint's weights in float16."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", _EXPORT, str(checkpoint), str(bundle), precision]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        watch, ended = Watch(process.pid), threading.Event()

        def sample() -> None:
            while not ended.wait(_EVERY_S):
                watch.look()

        thread = threading.Thread(target=sample)
        thread.start()
        seconds = 0.0
        assert process.stdout is not None
        for line in process.stdout:
            at, _, stage = line.strip().partition(" ")
            seconds = float(at)
            watch.enter(stage, seconds)
        ended.set()
        thread.join()
    if process.returncode:
        raise SystemExit(f"the export ended with {process.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    allowed = ALLOWED_TIMES * size + ALLOWED_BESIDE
    return {
        "fp16_bytes": size,
        "allowed_bytes": int(allowed),
        "peak_bytes": watch.most("own"),
        "peak_with_mapped_files_bytes": watch.most("with_files"),
        "peak_of_children_bytes": watch.most("children"),
        "within": watch.most("own") <= allowed,
        "within_with_mapped_files": watch.most("with_files") <= allowed,
        "seconds": seconds,
        "processor_seconds": round(busy, 1),
        "stages": watch.stages,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="for checkpoints and bundles, some 15 GB")
    parser.add_argument("--shape", action="append", choices=SHAPES)
    parser.add_argument("--precision", action="append", choices=("fp16", "int4"))
    given = parser.parse_args()
    rows: dict[str, Any] = {}
    for shape in given.shape or SHAPES:
        checkpoint = given.folder / shape
        size = write(shape, checkpoint)
        for precision in given.precision or ("fp16", "int4"):
            bundle = given.folder / f"{shape}-{precision}.bundle"
            rows[f"{shape} {precision}"] = measured(checkpoint, bundle, precision, size)
            record("export_memory", {"rows": rows})
            shutil.rmtree(bundle)
            time.sleep(1)
        shutil.rmtree(checkpoint)


if __name__ == "__main__":
    main()
