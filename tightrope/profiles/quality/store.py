"""Writes what points are worth while it is measured; the format is `tightrope.quality_file`'s.

Every outcome is committed before the next question is asked. No write-ahead log: the file is whole
at any time, and copying it copies all.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from pathlib import Path

from tightrope.bundle import Bundle
from tightrope.errors import ProfileError
from tightrope.point import OperatingPoint
from tightrope.quality_file import (
    TABLES,
    MeasuredPoint,
    Outcome,
    Quality,
    QualityKey,
    point_text,
    quality_file,
    read_quality,
    token_ids,
)
from tightrope.schemas import SCHEMAS

_COLUMNS = tuple(field.name for field in fields(Outcome))
_ADD = f"""
INSERT INTO outcomes (point, {", ".join(_COLUMNS)})
VALUES (?{", ?" * len(_COLUMNS)})
"""


class Store:
    """One quality file that is being measured, and all it holds in memory."""

    def __init__(
        self,
        file: Path,
        quality: Quality,
        database: sqlite3.Connection,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.file, self._key, self._database = file, quality.key, database
        self.notes = notes
        """What was found damaged and moved aside."""
        self.outcomes: dict[OperatingPoint, dict[str, Outcome]] = defaultdict(dict)
        """By question."""
        self.beaten: dict[OperatingPoint, OperatingPoint] = {}
        """Of points that left, the one that was better and no slower."""
        for measured in quality.points:
            known = {outcome.question: outcome for outcome in measured.outcomes}
            self.outcomes[measured.point] = known
            if measured.beaten_by is not None:
                self.beaten[measured.point] = measured.beaten_by
        self._ids: dict[str, int] = dict(database.execute("SELECT point, id FROM points"))
        self._types = dict(quality.types)
        self.unpruned = token_ids(database, "unpruned")
        """Token ids of the answers at everything, by question."""
        self._prompts = dict(quality.prompts)

    def add(
        self,
        point: OperatingPoint,
        outcome: Outcome,
        prompt: tuple[int, ...],
        unpruned: tuple[int, ...] | None = None,
    ) -> None:
        """Keep what became of a question.

        prompt: its token ids. unpruned: those of the answer, at the point of everything.
        """
        with self._writing():
            number = self._number(point)
            values = asdict(outcome)
            self._database.execute(_ADD, (number, *(values[name] for name in _COLUMNS)))
            if outcome.question not in self._prompts:
                self._add_ids("prompts", outcome.question, prompt)
            if unpruned is not None:
                self._add_ids("unpruned", outcome.question, unpruned)
        self.outcomes[point][outcome.question] = outcome
        self._prompts[outcome.question] = prompt
        if unpruned is not None:
            self.unpruned[outcome.question] = unpruned

    def name_types(self, types: Mapping[str, str]) -> None:
        """Keep the type of each question, by id."""
        new = {name: kind for name, kind in types.items() if self._types.get(name) != kind}
        with self._writing():
            add = "INSERT OR REPLACE INTO questions VALUES (?, ?)"
            self._database.executemany(add, list(new.items()))
        self._types |= new

    def leave(self, point: OperatingPoint, winner: OperatingPoint) -> None:
        """Keep that `point` left the race, and who was better and no slower."""
        with self._writing():
            row = (self._number(winner), self._number(point))
            self._database.execute("UPDATE points SET beaten_by = ? WHERE id = ?", row)
        self.beaten[point] = winner

    def quality(self) -> Quality:
        """All that is in the file."""
        return Quality(
            key=self._key,
            points=tuple(
                MeasuredPoint(
                    point=point,
                    outcomes=tuple(outcomes.values()),
                    beaten_by=self.beaten.get(point),
                )
                for point, outcomes in self.outcomes.items()
            ),
            types=dict(self._types),
            prompts=dict(self._prompts),
        )

    def _add_ids(self, table: str, question: str, ids: tuple[int, ...]) -> None:
        row = (question, " ".join(map(str, ids)))
        self._database.execute(f"INSERT INTO {table} VALUES (?, ?)", row)

    def _number(self, point: OperatingPoint) -> int:
        text = point_text(point)
        if text not in self._ids:
            cursor = self._database.execute("INSERT INTO points (point) VALUES (?)", (text,))
            assert cursor.lastrowid is not None
            self._ids[text] = cursor.lastrowid
        return self._ids[text]

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction, whole or not at all."""
        known = dict(self._ids)
        try:
            with self._database:
                self._database.execute("BEGIN")
                yield
        except sqlite3.Error as error:
            self._ids = known
            raise _not_written(self.file, error) from error


@contextlib.contextmanager
def opened(bundle: Bundle, key: QualityKey) -> Iterator[Store]:
    """The file for `key`, made if there is none, and gone on with if there is.

    One that is damaged is moved aside, and a note of the store says so. Raises ProfileError for
    one that was measured of something else, and that cannot be written, as on a full disk: what was
    measured stays.
    """
    file = quality_file(bundle, key)
    notes = _check_others(bundle, file, key)
    if not file.exists():
        _make(file, key)
    try:
        with contextlib.closing(_connected(file)) as database:
            database.executescript(TABLES)  # an older file lacks some
            yield Store(file, read_quality(bundle, file), database, notes)
    except sqlite3.Error as error:
        raise _not_written(file, error) from error


def _check_others(bundle: Bundle, file: Path, key: QualityKey) -> tuple[str, ...]:
    """Notes of files that were moved aside.

    Raises ProfileError where a file of this name, or of this task's name, is of something else.
    """
    notes = []
    for other in sorted(file.parent.glob("*.sqlite")):
        try:
            theirs = read_quality(bundle, other).key
        except ProfileError as error:
            if other.exists():
                raise
            notes.append(str(error))
            continue
        if other == file or theirs.task_name == key.task_name:
            _check_same(theirs, key, other)
    return tuple(notes)


def _make(file: Path, key: QualityKey) -> None:
    """An empty file under a name of its own first: under the real one it is always whole."""
    beside = file.with_name(f".{file.name}.part")
    about = {"schema": SCHEMAS["quality"], **asdict(key)}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        beside.unlink(missing_ok=True)
        with contextlib.closing(_connected(beside)) as database:
            database.executescript(TABLES)
            with database:
                rows = [(name, str(value)) for name, value in about.items()]
                database.executemany("INSERT INTO about VALUES (?, ?)", rows)
        os.replace(beside, file)
    except (OSError, sqlite3.Error) as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise _not_written(file, error) from error


def _connected(file: Path) -> sqlite3.Connection:
    database = sqlite3.connect(file, isolation_level=None)
    database.execute("PRAGMA journal_mode = DELETE")
    # What a killed process wrote is safe without waiting for the disk at every step.
    database.execute("PRAGMA synchronous = NORMAL")
    database.execute("PRAGMA foreign_keys = ON")
    return database


def _check_same(theirs: QualityKey, ours: QualityKey, file: Path) -> None:
    """Raises ProfileError naming what a file was measured with and is not measured with now."""
    for name in ("task_name", "task", "measure", "max_tokens"):
        found, wanted = getattr(theirs, name), getattr(ours, name)
        if found != wanted:
            raise ProfileError(
                f"{file} was measured with {name} {_short(found)}, here it is {_short(wanted)}: "
                "remove it, or measure as it was; another --name keeps both"
            )


def _short(value: object) -> str:
    return f"{value:.12}…" if isinstance(value, str) and len(value) == 64 else repr(value)


def _not_written(file: Path, error: BaseException) -> ProfileError:
    return ProfileError(
        f"{file} cannot be written ({error}); what was measured stays in it: make room there, or "
        "name another folder in TIGHTROPE_STATE, and start again to go on"
    )
