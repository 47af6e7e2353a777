"""Files of what requests take: one for each board, power mode, backend and thread count.

NAME.state/latency/<board>-<mode>-<backend>-<threads>.json

They stay where they were measured. What a file was measured on stands inside: a copy of it, or one
that is older than the bundle, is refused. That of the latency model is here; what else is measured
on one machine is written and read in the same way (`RecordKind`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from tightrope.bundle import Bundle
from tightrope.errors import ProfileError
from tightrope.foreign import words
from tightrope.latency import LatencyModel, check_model
from tightrope.power import PowerModel, check_power
from tightrope.schemas import SCHEMAS, versioned
from tightrope.state import file_slug, set_aside, state_folder, write_whole
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
    def stem(self) -> str:
        """Of a file's name."""
        parts = (self.board, self.power_mode, self.backend, str(self.threads))
        return "-".join(map(file_slug, parts))

    def __str__(self) -> str:
        return (
            f"{self.board}, power mode {self.power_mode}, {self.backend} on {self.threads} threads"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """How well requests were predicted that the model was not fitted to."""

    ttft_mape_percent: float
    """Mean absolute error of the time to the first token."""
    tpot_mape_percent: float
    ttft_above_p95_percent: float
    """Requests that took longer than the p95 predicted for them; 5 is right."""
    tpot_above_p95_percent: float
    drawn: int = 0
    """Requests drawn at random that tell it; 0: too few, kinds left out of the fit do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyRecord:
    """A fitted model, what it holds for, and where it came from."""

    key: LatencyKey
    date: str
    """ISO 8601, UTC."""
    points: int
    """Different requests that were measured."""
    requests: int
    """All that were fitted, warm-up not counted."""
    seconds: float
    packages: dict[str, str]
    held_out: HeldOut
    model: LatencyModel
    power: PowerModel | None = None
    """None where no sensor told what the board drew."""
    held_back: tuple[str, ...] = ()
    """What held the board back while it was measured: its times are those of a hot board."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values with a schema number."""
        return versioned("latency", asdict(self))


class Keyed(Protocol):
    """Something that was measured on one machine."""

    @property
    def key(self) -> LatencyKey: ...

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values with a schema number; entries are those of the record's class."""
        ...


R = TypeVar("R", bound=Keyed)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordKind(Generic[R]):
    """What a kind of file holds, and how another is made."""

    schema: str
    """Its name in `SCHEMAS`."""
    record: type[R]
    check: Callable[[R], None]
    """Raises TypeError or ValueError for figures that nothing was measured with."""
    make_one: Callable[[Bundle], str]
    """The command that makes such a file."""


def make_one(bundle: Bundle) -> str:
    """The command that makes a latency file."""
    return f"`tightrope profile {bundle.path} --latency-only`"


def _check(record: LatencyRecord) -> None:
    """Raises ValueError for figures that no fit gives."""
    check_model(record.model)
    if record.power is not None:
        check_power(record.power)


LATENCY = RecordKind(
    schema="latency",
    record=LatencyRecord,
    check=_check,
    make_one=make_one,
)


def latency_file(bundle: Bundle, key: LatencyKey) -> Path:
    """Where the model for `key` lies."""
    return state_folder(bundle.path) / FOLDER / f"{key.stem}.json"


def write_latency(bundle: Bundle, record: LatencyRecord) -> Path:
    """Write the record whole or not at all; raises ProfileError where it cannot be."""
    return write_record(latency_file(bundle, record.key), record)


def read_latency(bundle: Bundle, key: LatencyKey) -> LatencyRecord:
    """What was measured for `key`.

    Raises ProfileError where nothing was, where the file was made for something else, and where it
    is damaged: then it is moved aside, and the error says where to.
    """
    file = latency_file(bundle, key)
    try:
        return read_record(bundle, file, key, LATENCY)
    except FileNotFoundError:
        raise ProfileError(missing_latency(bundle, key)) from None


def read_latency_file(file: Path) -> LatencyRecord:
    """What a file says, whatever bundle and machine it is of: who compares reads several.

    Nothing is moved. Raises ProfileError for a file that cannot be read or is none of these.
    """
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        if (found := values.pop("schema")) != SCHEMAS[LATENCY.schema]:
            raise ValueError(f"its schema is {found!r}, not {SCHEMAS[LATENCY.schema]}")
        record: LatencyRecord = typed(LatencyRecord, values, file.name)
        LATENCY.check(record)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ProfileError(
            f"{file} is no latency file ({words(error)}); accepted: one that `tightrope profile "
            "BUNDLE --latency-only` wrote"
        ) from error
    return record


def missing_latency(bundle: Bundle, key: LatencyKey) -> str:
    """That there is no latency file for `key`, what there is, and how one is made."""
    others = sorted(path.stem for path in latency_file(bundle, key).parent.glob("*.json"))
    there = f"; there is one for {', '.join(others)}" if others else ""
    return f"no latency was measured for {key}{there}: {make_one(bundle)} does it in two minutes"


def write_record(file: Path, record: Keyed) -> Path:
    """Write the record whole or not at all; raises ProfileError where it cannot be."""
    try:
        write_whole(file, json.dumps(record.to_dict(), indent=1, allow_nan=False) + "\n")
    except OSError as error:
        raise ProfileError(
            f"{file} was not written ({error}); nothing is left of it: make room there, or name "
            "another folder in TIGHTROPE_STATE"
        ) from error
    return file


def read_record(bundle: Bundle, file: Path, key: LatencyKey, kind: RecordKind[R]) -> R:
    """What `file` holds of what was measured for `key`.

    Raises FileNotFoundError where there is none, and ProfileError where it was made for something
    else, or is damaged: then it is moved aside, and the error says where to.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ProfileError(f"{file} cannot be read ({error}); change its permissions") from error
    except ValueError as error:
        raise _damaged(bundle, file, kind, error) from error
    try:
        values = json.loads(text)
        found = values.pop("schema")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(bundle, file, kind, error) from error
    if found != SCHEMAS[kind.schema]:
        raise ProfileError(
            f"{file} has schema {found!r}, this reader knows {SCHEMAS[kind.schema]}; "
            f"{kind.make_one(bundle)} makes a new one"
        )
    try:
        record: R = typed(kind.record, values, file.name)
        kind.check(record)
    except (TypeError, ValueError) as error:
        raise _damaged(bundle, file, kind, error) from error
    for entry in fields(LatencyKey):
        theirs, ours = getattr(record.key, entry.name), getattr(key, entry.name)
        if theirs != ours:
            raise ProfileError(
                f"{file} was measured for {entry.name} {_short(theirs)}, here it is "
                f"{_short(ours)}; {kind.make_one(bundle)} measures this one"
            )
    return record


def _damaged(bundle: Bundle, file: Path, kind: RecordKind[R], error: BaseException) -> ProfileError:
    aside = set_aside(file)
    where = "could not be moved aside" if aside is None else f"was moved to {aside.name}"
    return ProfileError(
        f"{file} is damaged ({error}) and {where}; {kind.make_one(bundle)} makes a new one"
    )


def _short(value: object) -> str:
    return f"{value:.12}…" if isinstance(value, str) and len(value) == 64 else repr(value)
