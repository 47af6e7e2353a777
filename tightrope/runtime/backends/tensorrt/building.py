"""The engines of a bundle, built one after another on the board that will run them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tightrope.bundle import Bundle
from tightrope.errors import BackendError
from tightrope.interface.names import GraphName
from tightrope.jetson.facts import BoardFacts
from tightrope.plugins.kernels.homes import homes_of
from tightrope.runtime.backends.float16 import refuse_overflow
from tightrope.runtime.backends.tensorrt.build_process import Task
from tightrope.runtime.backends.tensorrt.cache import Described, EngineCache, EngineKey
from tightrope.runtime.backends.tensorrt.engines import BuildOptions, keys_of

PROCESS = ("-m", "tightrope.runtime.backends.tensorrt.build_process")
_LINES_OF_A_CRASH = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltEngine:
    """An engine that is there now."""

    graph: GraphName
    bytes: int
    seconds: float
    """That it took, once."""
    kept: bool
    """Whether it was there already."""


def build_engines(
    bundle: Bundle, state: Path, facts: BoardFacts, options: BuildOptions, *, alone: bool
) -> Iterator[BuiltEngine]:
    """Build what is not there yet, one engine after another.

    alone: prefill is to read single tokens as well, and there is to be no decode.
    Raises BackendError naming the graph that does not build, and UnsupportedModel for a bundle that
    float16 is too narrow for.
    """
    refuse_overflow(bundle.manifest)
    cache, single = EngineCache(state), GraphName("standard", "prefill")
    homes = tuple(map(str, homes_of(bundle.path, state)))
    for graph, key in keys_of(bundle, facts, options):
        if alone and graph.role == "decode":
            continue
        serves_all = alone and graph == single
        if (found := _kept(cache, key, serves_all)) is not None:
            yield BuiltEngine(graph=graph, bytes=found.plan_bytes, seconds=found.seconds, kept=True)
            continue
        told = _run(
            graph,
            Task(
                file=str(bundle.graph(graph)),
                state=str(state),
                key=key,
                alone=serves_all,
                homes=homes if graph.variant == "plugins" else (),
            ),
        )
        yield BuiltEngine(graph=graph, bytes=told["bytes"], seconds=told["seconds"], kept=False)


def _kept(cache: EngineCache, key: EngineKey, alone: bool) -> Described | None:
    """The engine of `key` where it is there and whole, and what it is for is noted."""
    try:
        found = cache.find(key)
        plan = cache.read(found)
    except BackendError:  # another one is built in its place
        return None
    return found if found.alone == alone else cache.store(key, plan, found.seconds, alone)


def remove_engines(bundle: Bundle, state: Path, facts: BoardFacts, options: BuildOptions) -> None:
    """Forget the engines of the bundle, because what they answer is wrong."""
    cache = EngineCache(state)
    for _, key in keys_of(bundle, facts, options):
        cache.remove(key)


def _run(graph: GraphName, task: Task) -> dict[str, Any]:
    run = subprocess.run(
        [sys.executable, *PROCESS],
        input=task.to_json(),
        env=dict(os.environ),
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    told = _last_json(run.stdout)
    if told is None:
        raise BackendError(f"{graph} was not built: {_ended(run.returncode, run.stderr)}")
    if "error" in told:
        raise BackendError(told["error"])
    return told


def _ended(status: int, said: str) -> str:
    if status == -signal.SIGKILL:
        return (
            "the kernel ended the process, most likely for want of memory; stop what else runs, "
            "or export with --precision int4"
        )
    end = f"by {signal.Signals(-status).name}" if status < 0 else f"with exit status {status}"
    return f"TensorRT ended {end}: " + " | ".join(said.strip().splitlines()[-_LINES_OF_A_CRASH:])


def _last_json(text: str) -> dict[str, Any] | None:
    try:
        told = json.loads(text.strip().rpartition("\n")[2])
    except ValueError:
        return None
    return told if isinstance(told, dict) else None
