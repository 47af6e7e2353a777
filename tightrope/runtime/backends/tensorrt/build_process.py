"""Builds one engine in a process of its own, and keeps it.

    python -m tightrope.runtime.backends.tensorrt.build_process

reads one line of JSON, what `Task` has, and prints one. A process, because TensorRT gives its
memory back with it alone, may abort, and may be ended by a kernel that runs out of memory.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from tightrope.errors import TightropeError
from tightrope.runtime.backends.tensorrt import versions
from tightrope.runtime.backends.tensorrt.build import build_plan
from tightrope.runtime.backends.tensorrt.cache import EngineCache, EngineKey
from tightrope.runtime.backends.tensorrt.driver import open_device
from tightrope.runtime.backends.tensorrt.kernels import register_plugins
from tightrope.typed import typed


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One engine to build."""

    file: str
    state: str
    key: EngineKey
    alone: bool
    homes: tuple[str, ...]
    """Where its plugins' kernels are; none for a graph without plugins."""

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))


def done(task: Task) -> dict[str, object]:
    """Build and keep the engine; raises BackendError where either fails."""
    cache, trt = EngineCache(Path(task.state)), versions.load_tensorrt()
    if task.homes:
        register_plugins(trt, Path(task.file), open_device(), [Path(home) for home in task.homes])
    built = build_plan(
        trt,
        Path(task.file),
        task.key.ranges,
        search=int(task.key.options["search"]),
        timing=cache.timing(task.key),
    )
    cache.keep_timing(task.key, built.timing)
    kept = cache.store(task.key, built.plan, built.seconds, task.alone)
    return {"bytes": kept.plan_bytes, "seconds": built.seconds, "layers": built.layers}


def main() -> None:
    task: Task = typed(Task, json.loads(sys.stdin.readline()), "task")
    try:
        answer = done(task)
    except TightropeError as error:
        answer = {"error": str(error)}
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
