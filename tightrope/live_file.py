"""The file of what requests really took here, and how often answers agreed with the unpruned ones.

NAME.state/live.sqlite

For every latency key a ring of each kind: the last `KEPT` entries, older ones leave as newer ones
come. What is added is added whole or not at all, by any number of processes at once. Nothing that
anybody asked or was answered is in it, and no image.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Generic, Literal, TypeVar

from tightrope.bundle import Bundle
from tightrope.errors import ProfileError
from tightrope.latency import SourceImage, Stages
from tightrope.latency_file import LatencyKey
from tightrope.schemas import SCHEMAS
from tightrope.sqlite_files import is_damage, reading, unreadable
from tightrope.state import state_folder
from tightrope.typed import typed

FILE = "live.sqlite"
KEPT = 1000
"""Entries of each kind and key."""
BUSY_SECONDS = 5.0
"""So long a writer waits for another one."""
_TABLES = (
    "CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS keys (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE)",
    "CREATE TABLE IF NOT EXISTS entries (id INTEGER PRIMARY KEY, key INTEGER NOT NULL "
    "REFERENCES keys, kind TEXT NOT NULL, time_s REAL NOT NULL, value TEXT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS rings ON entries (key, kind, id)",
)
_TRIM = """
DELETE FROM entries WHERE key = ? AND kind = ? AND id <= (
    SELECT id FROM entries WHERE key = ? AND kind = ? ORDER BY id DESC LIMIT 1 OFFSET ?
)
"""
_ANEW = "it is begun anew as soon as something is asked"


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveRequest:
    """What a request did, in the words of a latency model, and what each of its stages took."""

    point: str
    """The operating point, as `point_text` writes it."""
    num_ids: int
    """Tokens of the prompt, images as one each."""
    images: tuple[SourceImage, ...]
    completion_tokens: int
    """Of one answer."""
    answers: int
    """That were decoded together."""
    marks: tuple[tuple[int, ...], ...]
    """Where the prompt may be cut: tokens before it, and of these those that stand for images."""
    reused: tuple[int, ...]
    """Of these marks, by their tokens, those up to which slots were kept from other requests."""
    later_turn: bool
    """Whether the slots held the conversation's earlier turns."""
    cold: bool
    """Whether it was the first of its kind in its process: graphs were loaded for it."""
    took: Stages
    """Without what it waited for others."""
    energy_j: float | None = None
    """None: not measured."""
    throttled: tuple[str, ...] = ()
    """What held the board back meanwhile."""
    over_current: int = 0
    """Events meanwhile."""
    wholes: tuple[int, ...] = ()
    """Places, among the tokens, of images that no call may end inside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """An answer beside that at everything, generated later."""

    point: str
    """Where the first was answered, as `point_text` writes it."""
    same: bool
    """Whether both say the same behind their thoughts."""
    token_agreement: float
    """Share of the unpruned answer's tokens that were repeated in their places."""


Value = TypeVar("Value", LiveRequest, Agreement)
Kind = Literal["request", "agreement"]
_KINDS: dict[type, Kind] = {LiveRequest: "request", Agreement: "agreement"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry(Generic[Value]):
    """Something of a ring, and when it was done."""

    time_s: float
    """Since 1970."""
    value: Value


AnyEntry = Entry[LiveRequest] | Entry[Agreement]


def live_file(bundle: Bundle) -> Path:
    """Where the bundle's rings lie."""
    return state_folder(bundle.path) / FILE


def append(file: Path, key: LatencyKey, entries: Sequence[AnyEntry]) -> None:
    """Add `entries` to the rings of `key`, all of them or none.

    Raises ProfileError where it cannot be written, as on a full disk: what was in it stays. One
    that is damaged is moved aside, which the error says; the next call begins another.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(_connected(file)) as database, database:
            database.execute("BEGIN IMMEDIATE")
            for table in _TABLES:
                database.execute(table)
            schema = (str(SCHEMAS["live"]),)
            database.execute("INSERT OR IGNORE INTO about VALUES ('schema', ?)", schema)
            _check_schema(database, file)
            number = _number(database, key)
            for entry in entries:
                row = (number, _KINDS[type(entry.value)], entry.time_s, _text(entry.value))
                database.execute(
                    "INSERT INTO entries (key, kind, time_s, value) VALUES (?, ?, ?, ?)", row
                )
            for kind in _KINDS.values():
                database.execute(_TRIM, (number, kind, number, kind, KEPT))
    except (sqlite3.Error, OSError) as error:
        if isinstance(error, sqlite3.DatabaseError) and is_damage(error):
            raise unreadable(file, error, _ANEW) from error
        raise ProfileError(
            f"{file} cannot be written ({error}), what requests take is not kept: make room there, "
            "or name another folder in TIGHTROPE_STATE"
        ) from error


def read_requests(file: Path, key: LatencyKey, most: int = KEPT) -> list[Entry[LiveRequest]]:
    """The last requests of `key`, at most `most`, the oldest first; none where there is no file.

    Raises ProfileError for a file that cannot be read; one that is damaged is moved aside.
    """
    return _read(file, key, LiveRequest, most)


def read_agreements(file: Path, key: LatencyKey) -> list[Entry[Agreement]]:
    """Answers of `key` beside unpruned ones, the oldest first; raises as `read_requests`."""
    return _read(file, key, Agreement, KEPT)


def keys_of(file: Path) -> list[LatencyKey]:
    """What there are rings of; raises as `read_requests`."""
    with _rings(file) as database:
        texts = [] if database is None else database.execute("SELECT key FROM keys").fetchall()
        return [typed(LatencyKey, json.loads(text), "key") for (text,) in texts]


def _read(file: Path, key: LatencyKey, kind: type[Value], most: int) -> list[Entry[Value]]:
    with _rings(file) as database:
        if database is None:
            return []
        rows = database.execute(
            "SELECT time_s, value FROM entries WHERE kind = ? AND key = "
            "(SELECT id FROM keys WHERE key = ?) ORDER BY id DESC LIMIT ?",
            (_KINDS[kind], _text(key), most),
        ).fetchall()
        return [
            Entry(time_s=float(time_s), value=typed(kind, json.loads(text), "entry"))
            for time_s, text in reversed(rows)
        ]


@contextlib.contextmanager
def _rings(file: Path) -> Iterator[sqlite3.Connection | None]:
    """The file to read; None where nothing was written yet."""
    if not file.exists():
        yield None
        return
    try:
        with reading(file) as database:
            # Whoever began it may have been killed before anything was in it.
            empty = not database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if not empty:
                _check_schema(database, file)
            yield None if empty else database
    except (sqlite3.Error, LookupError, TypeError, ValueError) as error:
        raise unreadable(file, error, _ANEW) from error


def _connected(file: Path) -> sqlite3.Connection:
    # No write-ahead log: one file with nothing beside it, and only a thread waits for the disk.
    return sqlite3.connect(file, timeout=BUSY_SECONDS, isolation_level=None)


def _check_schema(database: sqlite3.Connection, file: Path) -> None:
    """Raises ProfileError for a file of another version."""
    row = database.execute("SELECT value FROM about WHERE name = 'schema'").fetchone()
    found, known = None if row is None else row[0], str(SCHEMAS["live"])
    if found != known:
        raise ProfileError(
            f"{file} has schema {found}, this version knows {known}: remove it, {_ANEW}"
        )


def _number(database: sqlite3.Connection, key: LatencyKey) -> int:
    text = _text(key)
    database.execute("INSERT OR IGNORE INTO keys (key) VALUES (?)", (text,))
    number: int = database.execute("SELECT id FROM keys WHERE key = ?", (text,)).fetchone()[0]
    return number


def _text(value: LatencyKey | LiveRequest | Agreement) -> str:
    """As JSON: equal values have equal texts."""
    return json.dumps(asdict(value), allow_nan=False)
