"""Engines that were built here, in the bundle's state folder, each known by all that it depends on.

engines/GRAPH-KEY.plan     what TensorRT made of the graph
engines/GRAPH-KEY.json     its key, what it was built for, its bytes and their sha256
engines/timing-KEY.cache   what TensorRT measured on this board and need not measure again

Nothing of it is ever taken from a bundle: deserialising an engine runs what stands in it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tightrope.errors import BackendError
from tightrope.foreign import translated
from tightrope.runtime.backends.tensorrt.trusted import names_in, read_trusted, write_trusted
from tightrope.typed import typed

FOLDER = "engines"
_SCHEMA = 1
_BUILD = "run: tightrope build BUNDLE"
_REBUILD = "remove it, and run: tightrope build BUNDLE"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineKey:
    """All that an engine depends on; where one part differs it is another engine."""

    bundle: str
    """Digest of the bundle's files."""
    graph: str
    opset: int
    """Of Tightrope's own ops."""
    compute_capability: str
    board: str
    tensorrt: str
    options: dict[str, str]
    """What it was asked for: plugins, how long TensorRT searches."""
    ranges: dict[str, tuple[int, ...]]
    """Axis -> shortest, most common, longest, of one optimization profile after another."""

    @property
    def name(self) -> str:
        """What its files are called, without their ending."""
        text = json.dumps(asdict(self), sort_keys=True)
        return f"{self.graph}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


_DIFFERS = {
    "bundle": "was built from another bundle ({found:.12}, this one is {wanted:.12})",
    "opset": "was built for op set {found}, this bundle has {wanted}",
    "compute_capability": "was built for compute capability {found}, this GPU has {wanted}",
    "board": "was built on {found}, this is {wanted}",
    "tensorrt": "was built by TensorRT {found}, here is {wanted}",
    "options": "was built with other options ({found}, asked for {wanted})",
    "ranges": "was built for other numbers of tokens or slots than bundle.json has",
}
"""What is said of an engine by the first part in which it is another; in this order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """What stands beside a plan."""

    schema: int
    key: EngineKey
    plan_bytes: int
    sha256: str
    seconds: float
    """That building took."""
    alone: bool
    """Of prefill: whether it reads single tokens as well, because memory allows no engine more."""


class EngineCache:
    """The engines in one state folder."""

    def __init__(self, state: Path) -> None:
        self.folder = state / FOLDER

    def find(self, key: EngineKey) -> Described:
        """What is known of the engine of `key`; its plan is not read yet.

        Raises BackendError that says what there is instead, and how to get it.
        """
        try:
            found = self._described(f"{key.name}.json")
        except FileNotFoundError:
            raise BackendError(self._missing(key)) from None
        if found.key != key:
            raise BackendError(
                f"{self.folder / key.name}.json describes another engine than its name says; "
                f"{_REBUILD}"
            )
        return found

    def has(self, key: EngineKey) -> bool:
        """Whether there is an engine of `key`; raises BackendError for a damaged description."""
        try:
            self._described(f"{key.name}.json")
        except FileNotFoundError:
            return False
        return True

    def read(self, found: Described) -> bytes:
        """Those very bytes of the plan that were built; raises BackendError for any others."""
        name = f"{found.key.name}.plan"
        try:
            plan = read_trusted(self.folder, name)
        except FileNotFoundError:
            raise BackendError(f"{self.folder / name} is gone; {_BUILD}") from None
        if len(plan) != found.plan_bytes or hashlib.sha256(plan).hexdigest() != found.sha256:
            raise BackendError(
                f"{self.folder / name} is damaged: it is not what was built (its sha256 differs); "
                f"{_REBUILD}"
            )
        return plan

    def store(self, key: EngineKey, plan: bytes, seconds: float, alone: bool) -> Described:
        """Keep a plan that was built; raises BackendError where the folder cannot be used."""
        found = Described(
            schema=_SCHEMA,
            key=key,
            plan_bytes=len(plan),
            sha256=hashlib.sha256(plan).hexdigest(),
            seconds=seconds,
            alone=alone,
        )
        write_trusted(self.folder, f"{key.name}.plan", plan)
        text = json.dumps(asdict(found), indent=2)
        write_trusted(self.folder, f"{key.name}.json", text.encode())
        return found

    def remove(self, key: EngineKey) -> None:
        """Forget an engine."""
        for ending in ("json", "plan"):
            (self.folder / f"{key.name}.{ending}").unlink(missing_ok=True)

    def all(self) -> list[Described]:
        """What is known of every engine; raises BackendError for a damaged description."""
        names = [name for name in names_in(self.folder) if name.endswith(".json")]
        return [self._described(name) for name in names]

    def timing(self, key: EngineKey) -> bytes:
        """What TensorRT measured on this board before; empty if nothing."""
        try:
            return read_trusted(self.folder, _timing(key))
        except FileNotFoundError:
            return b""

    def keep_timing(self, key: EngineKey, measured: bytes) -> None:
        """Keep it for the next graph."""
        write_trusted(self.folder, _timing(key), measured)

    def _described(self, name: str) -> Described:
        file = self.folder / name
        content = read_trusted(self.folder, name)
        with translated(BackendError, f"{file} is damaged", _REBUILD):
            values = json.loads(content.decode())
            if not isinstance(values, Mapping) or values.get("schema") != _SCHEMA:
                raise ValueError(f"it has another schema than {_SCHEMA}")
            found: Described = typed(Described, values, name)
        return found

    def _missing(self, key: EngineKey) -> str:
        """Why there is no engine of `key`: what the nearest one there was built for."""
        others = [found.key for found in self.all() if found.key.graph == key.graph]
        if not others:
            return f"there is no engine for {key.graph} in {self.folder}; {_BUILD}"
        # The one that agrees in most has the fewest reasons.
        nearest = min(others, key=lambda other: len(_differing(key, other)))
        part, *_ = _differing(key, nearest)
        values = {"found": getattr(nearest, part), "wanted": getattr(key, part)}
        return f"the engine of {key.graph} {_DIFFERS[part].format(**values)}; {_BUILD}"


def _differing(one: EngineKey, other: EngineKey) -> list[str]:
    values: dict[str, Any] = asdict(other)
    return [name for name, value in asdict(one).items() if values[name] != value]


def _timing(key: EngineKey) -> str:
    text = json.dumps([key.compute_capability, key.board, key.tensorrt])
    return f"timing-{hashlib.sha256(text.encode()).hexdigest()[:16]}.cache"
