"""The file of what operating points are worth: one for each task, and it travels with the bundle.

NAME.state/quality/<task>-<first digits of its hash>.sqlite

A file is matched by the digests of bundle and task, and one of another bundle is refused. Every
outcome of every question is kept, so that points are compared question by question. It is read
whole, and written by `tightrope.profiles.quality.store` alone.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from tightrope.bundle import Bundle
from tightrope.errors import ProfileError
from tightrope.point import OperatingPoint
from tightrope.schemas import SCHEMAS
from tightrope.sqlite_files import reading, unreadable
from tightrope.state import state_folder, task_stem

FOLDER = "quality"
TABLES = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS points (
    id INTEGER PRIMARY KEY,
    point TEXT NOT NULL UNIQUE,
    beaten_by INTEGER REFERENCES points
);
CREATE TABLE IF NOT EXISTS outcomes (
    point INTEGER NOT NULL REFERENCES points,
    question TEXT NOT NULL,
    score REAL NOT NULL,
    token_agreement REAL,
    text TEXT NOT NULL,
    completion_tokens INTEGER NOT NULL,
    thinking_tokens INTEGER NOT NULL,
    finish_reason TEXT NOT NULL,
    PRIMARY KEY (point, question)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS unpruned (
    question TEXT PRIMARY KEY,
    token_ids TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS prompts (
    question TEXT PRIMARY KEY,
    token_ids TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS questions (
    question TEXT PRIMARY KEY,
    type TEXT NOT NULL
) WITHOUT ROWID;
"""
"""about: the entries of `QualityKey`, and `schema`. points: as JSON, see `point_text`; `beaten_by`
names the point that was better and no slower where one left the race. outcomes: `score` is how
right an answer is, 0..1, or whether it equals the unpruned one; `token_agreement` the share of the
unpruned answer's tokens that it repeats in their places. unpruned: those tokens, with spaces
between their ids. prompts: what the model read of a question, an image as one token. questions: the
type of each, by which accuracy is counted."""

Measure = Literal["accuracy", "agreement"]


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityKey:
    """What the outcomes are of."""

    bundle: str
    """The bundle's digest."""
    task: str
    """The task's digest: of its questions, answers and images."""
    task_name: str
    measure: Measure
    """Against labels, or against the answers at everything."""
    max_tokens: int

    @property
    def file_name(self) -> str:
        return f"{task_stem(self.task_name, self.task)}.sqlite"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one question at one point."""

    question: str
    """Its id."""
    score: float
    """0..1"""
    token_agreement: float | None = None
    text: str
    completion_tokens: int
    thinking_tokens: int
    finish_reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredPoint:
    """An operating point and all that was asked at it."""

    point: OperatingPoint
    outcomes: tuple[Outcome, ...]
    beaten_by: OperatingPoint | None = None
    """The point that was better and no slower; then not every question was asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """A whole file."""

    key: QualityKey
    points: tuple[MeasuredPoint, ...]
    types: Mapping[str, str] = field(default_factory=dict)
    """Of the task's questions, by id; a file may be older than these."""
    prompts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Token ids by question, an image as one; a file may be older than these."""


def quality_file(bundle: Bundle, key: QualityKey) -> Path:
    """Where outcomes for `key` lie."""
    return state_folder(bundle.path) / FOLDER / key.file_name


def point_text(point: OperatingPoint) -> str:
    """A point as JSON, what is None left out: equal points have equal texts."""
    values = {name: value for name, value in asdict(point).items() if value is not None}
    return json.dumps(values, sort_keys=True)


def point_of(text: str) -> OperatingPoint:
    """The inverse; raises TypeError or ValueError for what is no point."""
    values = json.loads(text)
    known = {field.name for field in fields(OperatingPoint)}
    if not isinstance(values, dict) or set(values) - known:
        raise TypeError(f"{text!r} is no operating point")
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }
    return OperatingPoint(**given)


def read_qualities(bundle: Bundle) -> tuple[Quality, ...]:
    """All that was measured of the bundle, in the order of the tasks' names.

    Raises ProfileError for a file of another bundle, and for one that is damaged: then it is moved
    aside, and the error says where to.
    """
    folder = state_folder(bundle.path) / FOLDER
    return tuple(read_quality(bundle, file) for file in sorted(folder.glob("*.sqlite")))


def find_quality(bundle: Bundle, task: str | None) -> Quality | None:
    """What was measured by the task of this name, or by the only one there is; None of none.

    Raises ProfileError as `read_qualities`, and where the name has to be given or is unknown.
    """
    found = read_qualities(bundle)
    names = ", ".join(quality.key.task_name for quality in found)
    if task is not None:
        for quality in found:
            if quality.key.task_name == task:
                return quality
        raise ProfileError(
            f"no quality was measured by task {task!r}; there is: {names or 'none'}; "
            f"`tightrope profile {bundle.path} --task DIR --quality-only` measures one"
        )
    if len(found) > 1:
        raise ProfileError(f"quality was measured by {names}; name the task to plan by")
    return found[0] if found else None


def read_quality(bundle: Bundle, file: Path) -> Quality:
    """One file, whole; raises ProfileError as `read_qualities`."""
    try:
        with reading(file) as database:
            about = dict(database.execute("SELECT name, value FROM about"))
            schema = about.pop("schema", None)
            if schema == str(SCHEMAS["quality"]):
                quality = _quality(database, about, file.name)
    except (sqlite3.DatabaseError, LookupError, TypeError, ValueError) as error:
        raise unreadable(file, error, "measure again") from error
    if schema != str(SCHEMAS["quality"]):
        raise ProfileError(
            f"{file} has schema {schema}, this reader knows {SCHEMAS['quality']}; remove it and "
            "measure again"
        )
    if quality.key.bundle != bundle.digest:
        raise ProfileError(
            f"{file} was measured of bundle {quality.key.bundle:.12}…, this one is "
            f"{bundle.digest:.12}…: remove it, and measure this bundle"
        )
    return quality


def _quality(database: sqlite3.Connection, about: dict[str, str], name: str) -> Quality:
    values: dict[str, Any] = dict(about)
    if "max_tokens" in values:
        values["max_tokens"] = int(values["max_tokens"])
    if values.get("measure") not in get_args(Measure):
        raise ValueError(f"measure is {values.get('measure')!r}")
    key = QualityKey(**values)
    rows = database.execute("SELECT id, point, beaten_by FROM points ORDER BY id").fetchall()
    points = {number: point_of(text) for number, text, _ in rows}
    outcomes: dict[int, list[Outcome]] = {number: [] for number in points}
    columns = [field.name for field in fields(Outcome)]
    order = f"SELECT point, {', '.join(columns)} FROM outcomes ORDER BY point, question"
    for number, *cells in database.execute(order):
        outcome = Outcome(**dict(zip(columns, cells, strict=True)))
        _check_outcome(outcome)
        outcomes[number].append(outcome)
    return Quality(
        key=key,
        points=tuple(
            MeasuredPoint(
                point=points[number],
                outcomes=tuple(outcomes[number]),
                beaten_by=None if beaten_by is None else points[beaten_by],
            )
            for number, _, beaten_by in rows
        ),
        types=_types(database),
        prompts=token_ids(database, "prompts"),
    )


def token_ids(database: sqlite3.Connection, table: str) -> dict[str, tuple[int, ...]]:
    """By question, of a table `unpruned` or `prompts`; raises ValueError for what is none."""
    if not _has(database, table):
        return {}
    rows = database.execute(f"SELECT question, token_ids FROM {table}")
    return {question: tuple(map(int, ids.split())) for question, ids in rows}


def _types(database: sqlite3.Connection) -> dict[str, str]:
    if not _has(database, "questions"):
        return {}
    types = dict(database.execute("SELECT question, type FROM questions"))
    if not all(isinstance(text, str) for pair in types.items() for text in pair):
        raise TypeError("a question has a type that is no text")
    return types


def _has(database: sqlite3.Connection, table: str) -> bool:
    names = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
    return database.execute(names, (table,)).fetchone() is not None


def _check_outcome(outcome: Outcome) -> None:
    """Raises TypeError or ValueError for what no profile writes: a column takes any value."""
    shares = (outcome.score, 0.0 if outcome.token_agreement is None else outcome.token_agreement)
    counts = (outcome.completion_tokens, outcome.thinking_tokens)
    texts = (outcome.question, outcome.text, outcome.finish_reason)
    if not (all(0 <= share <= 1 for share in shares) and all(count >= 0 for count in counts)):
        raise ValueError(f"question {outcome.question!r} has {shares} and {counts}")
    if not all(isinstance(text, str) for text in texts):
        raise TypeError(f"question {outcome.question!r} has texts that are none")
