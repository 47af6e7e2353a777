"""What all benchmarks share: paired repetitions, and a record that names what produced it."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

RESULTS = Path(__file__).parent / "results"


def interleaved(tasks: dict[str, Callable[[], Any]], repetitions: int) -> dict[str, list[float]]:
    """Milliseconds of each task, all tasks in turn in every repetition, so that drift hits all."""
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for task in tasks.values():
        task()
    for _ in range(repetitions):
        for name, task in tasks.items():
            started = time.perf_counter()
            task()
            times[name].append((time.perf_counter() - started) * 1e3)
    return times


def spread(values: list[float]) -> dict[str, float]:
    """Median and the range of the middle half."""
    ordered = sorted(values)
    quarter = len(ordered) // 4
    return {
        "median": median(ordered),
        "low": ordered[quarter],
        "high": ordered[-1 - quarter],
        "count": len(ordered),
    }


def record(name: str, figures: dict[str, Any]) -> None:
    """Print figures and write them to results/NAME.json with the command and the machine."""
    packages = {}
    for package in ("tightrope", "onnxruntime", "numpy", "llama-cpp-python", "torch"):
        try:
            packages[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    script = Path(sys.argv[0]).name
    content = {
        "command": shlex.join(["python", f"benchmarks/{script}", *sys.argv[1:]]),
        "date": datetime.now(timezone.utc).date().isoformat(),
        "machine": {"cpu": _cpu(), "cores": os.cpu_count(), "system": platform.platform()},
        "python": platform.python_version(),
        "packages": packages,
        **figures,
    }
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(content, indent=1)
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    print(text)


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
