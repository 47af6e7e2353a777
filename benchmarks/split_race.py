"""A race split over workers of this machine beside the same race in one process: time and table.

    python benchmarks/split_race.py BUNDLE TASK

Every process computes with one thread. What workers take to start is not counted, as they stay.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import distributed
from measuring import record

import tightrope as tr
from tightrope.profiles.boards.boards import connected
from tightrope.profiles.quality.config import QualityConfig
from tightrope.profiles.quality.profile import profile_quality
from tightrope.profiles.quality.report import Profiled
from tightrope.profiles.task.task import read_task


def worker(bundle: str, url: str) -> subprocess.Popen[str]:
    """A worker that is ready."""
    command = [sys.executable, "-m", "tightrope", "profile-worker", bundle, "--scheduler", url]
    command += ["--unencrypted", "--threads", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline().startswith("ready")
    return process


def table(found: Profiled) -> dict[Any, Any]:
    return {
        point.point: (point.beaten_by, {outcome.question: outcome for outcome in point.outcomes})
        for point in found.quality.points
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("task", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--points", type=int, default=12)
    parser.add_argument("--limit", type=int, default=96)
    given = parser.parse_args()
    task, model = read_task(given.task), tr.load(given.bundle, threads=1, live=False)

    def config(name: str) -> QualityConfig:
        return QualityConfig(points=given.points, limit=given.limit, max_tokens=16, name=name)

    with (
        tempfile.TemporaryDirectory() as folder,
        distributed.LocalCluster(n_workers=0, dashboard_address=None) as cluster,
    ):
        os.environ["TIGHTROPE_STATE"] = folder
        workers = [worker(given.bundle, cluster.scheduler_address) for _ in range(given.workers)]
        try:
            with connected(cluster.scheduler_address, model, unencrypted=True) as boards:
                split = profile_quality(model, task, config("split"), ask=boards.ask)
            alone = profile_quality(model, task, config("alone"))
        finally:
            for process in workers:
                process.terminate()
                process.wait()
    figures = {
        "questions": split.questions,
        "points": len(split.quality.points),
        "asked": [alone.asked, split.asked],
        "same table": table(alone) == table(split),
        "one process s": alone.seconds,
        f"{given.workers} workers s": split.seconds,
        "share of the time": split.seconds / alone.seconds,
    }
    record("split_race", figures)


if __name__ == "__main__":
    main()
