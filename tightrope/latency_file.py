"""The file of a latency model: one for each board, power mode, backend and thread count.

NAME.state/latency/<board>-<mode>-<backend>-<threads>.json

It stays where it was measured. What it was measured on stands inside: a copy of it, or one that is
older than the bundle, is refused.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from tightrope.bundle import Bundle
from tightrope.errors import ProfileError
from tightrope.latency import LatencyModel, check_model
from tightrope.schemas import SCHEMAS, versioned
from tightrope.state import set_aside, state_folder, write_whole
from tightrope.typed import typed

FOLDER = "latency"


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyKey:
    """What a latency model holds for, and for nothing else."""

    bundle: str
    """The bundle's digest."""
    board: str
    power_mode: str
    backend: str
    threads: int

    @property
    def file_name(self) -> str:
        parts = (self.board, self.power_mode, self.backend, str(self.threads))
        slugs = (re.sub(r"[^a-z0-9.]+", "_", part.lower()).strip("_.") for part in parts)
        return "-".join(slugs) + ".json"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """How well points were predicted by models fitted to the others."""

    ttft_mape_percent: float
    """Mean absolute error of a point's median time to the first token."""
    tpot_mape_percent: float
    ttft_above_p95_percent: float
    """Requests that took longer than the p95 predicted for them; 5 is right."""
    tpot_above_p95_percent: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyRecord:
    """A fitted model, what it holds for, and where it came from."""

    key: LatencyKey
    date: str
    """ISO 8601, UTC."""
    points: int
    """Different requests that were measured."""
    requests: int
    """All that were measured, warm-up not counted."""
    seconds: float
    packages: dict[str, str]
    held_out: HeldOut
    model: LatencyModel

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values with a schema number."""
        return versioned("latency", asdict(self))


def latency_file(bundle: Bundle, key: LatencyKey) -> Path:
    """Where the model for `key` lies."""
    return state_folder(bundle.path) / FOLDER / key.file_name


def make_one(bundle: Bundle) -> str:
    """The command that makes a latency file."""
    return f"`tightrope profile {bundle.path} --latency-only`"


def write_latency(bundle: Bundle, record: LatencyRecord) -> Path:
    """Write the record whole or not at all; raises ProfileError where it cannot be."""
    file = latency_file(bundle, record.key)
    try:
        write_whole(file, json.dumps(record.to_dict(), indent=1, allow_nan=False) + "\n")
    except OSError as error:
        raise ProfileError(
            f"{file} was not written ({error}); nothing is left of it: make room there, or name "
            "another folder in TIGHTROPE_STATE"
        ) from error
    return file


def read_latency(bundle: Bundle, key: LatencyKey) -> LatencyRecord:
    """What was measured for `key`.

    Raises ProfileError where nothing was, where the file was made for something else, and where it
    is damaged: then it is moved aside, and the error says where to.
    """
    file = latency_file(bundle, key)
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ProfileError(_missing(bundle, key, file)) from None
    except OSError as error:
        raise ProfileError(f"{file} cannot be read ({error}); change its permissions") from error
    except ValueError as error:
        raise _damaged(bundle, file, error) from error
    try:
        values = json.loads(text)
        found = values.pop("schema")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(bundle, file, error) from error
    if found != SCHEMAS["latency"]:
        raise ProfileError(
            f"{file} has schema {found!r}, this reader knows {SCHEMAS['latency']}; "
            f"{make_one(bundle)} makes a new one"
        )
    try:
        record: LatencyRecord = typed(LatencyRecord, values, file.name)
        check_model(record.model)
    except (TypeError, ValueError) as error:
        raise _damaged(bundle, file, error) from error
    for entry in fields(LatencyKey):
        theirs, ours = getattr(record.key, entry.name), getattr(key, entry.name)
        if theirs != ours:
            raise ProfileError(
                f"{file} was measured for {entry.name} {_short(theirs)}, here it is "
                f"{_short(ours)}; {make_one(bundle)} measures this one"
            )
    return record


def _missing(bundle: Bundle, key: LatencyKey, file: Path) -> str:
    others = sorted(path.stem for path in file.parent.glob("*.json"))
    there = f"; there is one for {', '.join(others)}" if others else ""
    return (
        f"no latency was measured for {key.board}, power mode {key.power_mode}, {key.backend} on "
        f"{key.threads} threads{there}: {make_one(bundle)} does it in two minutes"
    )


def _damaged(bundle: Bundle, file: Path, error: BaseException) -> ProfileError:
    aside = set_aside(file)
    where = "could not be moved aside" if aside is None else f"was moved to {aside.name}"
    return ProfileError(
        f"{file} is damaged ({error}) and {where}; {make_one(bundle)} makes a new one"
    )


def _short(value: object) -> str:
    return f"{value:.12}…" if isinstance(value, str) and len(value) == 64 else repr(value)
