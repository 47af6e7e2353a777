"""How many of a task's questions a bundle answers rightly, and what the answers cost.

An answer is what follows the model's thought. It is right if it equals an accepted one, capitals
and white space aside; an item with `scoring: "vqa"` counts as far as people agree with it.
"""

from __future__ import annotations

import difflib
import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from tightrope.budget import OperatingPoint
from tightrope.errors import InputError
from tightrope.profiles.task.task import Item, Task
from tightrope.profiles.task.vqa import vqa_accuracy
from tightrope.runtime.images import load_image

if TYPE_CHECKING:
    from tightrope.runtime.answer import Answer
    from tightrope.runtime.model import Model

SCHEMA = 1
BEGIN_THOUGHT, END_THOUGHT = "<think>", "</think>"
THINKING = {"on": True, "off": False}
Z95 = 1.959964
"""Standard deviations on either side of the mean that hold 95 % of a normal distribution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreConfig:
    """Which questions are asked, and how."""

    point: OperatingPoint | None = None
    """What each request may spend; None: everything."""
    max_tokens: int = 256
    thinking: str | None = None
    """on: the model may think first; off: its turn is opened with an empty thought. None leaves
    it to the chat template, and is the only choice for one that does not know of thoughts."""
    types: tuple[str, ...] = ()
    """Question types that are asked; none: all."""
    limit: int | None = None
    """Only the first so many of them."""
    by: tuple[str, ...] = ()
    """Fields of `info` whose values are counted apart, as types are."""
    seed: int = 0
    """For selectors that draw at random; answers are always the likeliest tokens."""

    def __post_init__(self) -> None:
        if self.thinking is not None and self.thinking not in THINKING:
            raise InputError(f"thinking is {self.thinking!r}; accepted: {', '.join(THINKING)}")
        if self.limit is not None and self.limit < 1:
            raise InputError(f"limit is {self.limit}; accepted: 1 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How many of some questions were answered rightly."""

    n: int
    """Questions that have a reference."""
    right: float
    """A sum: an answer that people agree with in part counts in part."""

    @property
    def accuracy(self) -> float | None:
        """Share of right answers; None of no questions."""
        return self.right / self.n if self.n else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Wilson's 95 % interval of the accuracy; None of no questions.

        For answers that count in part it is too wide rather than too narrow: they spread less.
        """
        if not self.n:
            return None
        share, weight = self.right / self.n, Z95**2 / self.n
        middle = (share + weight / 2) / (1 + weight)
        half = sqrt(max(0.0, share * (1 - share)) * weight + weight**2 / 4) / (1 + weight)
        return max(0.0, middle - half), min(1.0, middle + half)

    def to_dict(self) -> dict[str, Any]:
        """The tally as JSON-ready values."""
        return asdict(self) | {"accuracy": self.accuracy, "interval": self.interval}


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What became of one question."""

    id: str
    text: str
    """All that the model said, its thought included."""
    right: float | None
    """0..1; None where the task has no reference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a score found; means are over all questions that were asked."""

    overall: Tally
    types: dict[str, Tally]
    """By type, in the order in which the task has them."""
    by: dict[str, dict[str, Tally]]
    """The same by the values of each field asked for; questions without it are left out."""
    without_reference: int
    """Questions that were asked but cannot be right or wrong; no tally counts them."""
    visual_tokens_kept: float
    prompt_tokens: float
    """Of the whole prompt, its images unpruned."""
    completion_tokens: float
    wall_s: float
    """From the first question to the last answer."""
    finish_reasons: dict[str, float]
    """Share of the answers that ended for each reason."""
    point: OperatingPoint
    """What was spent, everything that was left open resolved."""
    backend: str
    records: tuple[Record, ...]
    """In the task's order."""

    def to_dict(self, records: bool = False) -> dict[str, Any]:
        """The report as JSON-ready values with a schema number; records only if asked for."""
        values: dict[str, Any] = {"schema": SCHEMA, "overall": self.overall.to_dict()}
        values["types"] = {name: tally.to_dict() for name, tally in self.types.items()}
        values["by"] = {
            field: {value: tally.to_dict() for value, tally in tallies.items()}
            for field, tallies in self.by.items()
        }
        values |= {
            "without_reference": self.without_reference,
            "visual_tokens_kept": self.visual_tokens_kept,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "wall_s": self.wall_s,
            "finish_reasons": self.finish_reasons,
            "point": asdict(self.point),
            "backend": self.backend,
        }
        return values | ({"records": [asdict(one) for one in self.records]} if records else {})


def score_task(
    model: Model,
    task: Task,
    config: ScoreConfig,
    progress: Callable[[str, float], None] | None = None,
) -> Report:
    """Asks the questions of `task` that `config` chooses, and counts right answers.

    progress: called with the item's id and the fraction that is done. Raises InputError for a
    choice that the task or the bundle does not offer, and for a question that cannot be asked.
    """
    items = _chosen(task, config)
    begin = time.perf_counter()
    answers = _ask_all(model, items, config, progress)
    wall_s = time.perf_counter() - begin
    records = tuple(
        Record(id=item.id, text=answer.text, right=rightness(item, answer.text))
        for item, answer in zip(items, answers, strict=True)
    )
    rights = [record.right for record in records]
    reasons = Counter(answer.finish_reason for answer in answers)
    return Report(
        overall=_tally(rights),
        types=_tallies([item.type for item in items], rights),
        by={
            field: _tallies([_value(item, field) for item in items], rights) for field in config.by
        },
        without_reference=rights.count(None),
        visual_tokens_kept=fmean(answer.usage.visual_tokens_kept for answer in answers),
        prompt_tokens=fmean(answer.usage.prompt_tokens for answer in answers),
        completion_tokens=fmean(answer.usage.completion_tokens for answer in answers),
        wall_s=wall_s,
        finish_reasons={reason: count / len(answers) for reason, count in reasons.items()},
        point=answers[0].point,
        backend=answers[0].backend,
        records=records,
    )


def rightness(item: Item, text: str) -> float | None:
    """How right `text` is, 0..1; None where the item has no reference."""
    if not item.answers:
        return None
    said = after_thought(text)
    if said is None:
        return 0.0
    if item.info.get("scoring") == "vqa":
        return vqa_accuracy(said, item.answers)
    return float(_plain(said) in map(_plain, item.answers))


def after_thought(text: str) -> str | None:
    """What follows the thought; None where a thought was begun and never ended."""
    said = text.rpartition(END_THOUGHT)[2]
    return None if BEGIN_THOUGHT in said else said.strip()


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _chosen(task: Task, config: ScoreConfig) -> list[Item]:
    types = dict.fromkeys(item.type for item in task.items)
    for name in config.types:
        _check_known(name, "type", types)
    chosen = [item for item in task.items if not config.types or item.type in config.types]
    chosen = chosen[: config.limit]
    fields = dict.fromkeys(field for item in chosen for field in item.info)
    for name in config.by:
        _check_known(name, "field of info", fields)
    return chosen


def _check_known(name: str, kind: str, known: Iterable[str]) -> None:
    names = list(known)
    if name not in names:
        close = difflib.get_close_matches(name, names, 1)
        meant = f", {close[0]!r} was probably meant" if close else ""
        raise InputError(
            f"the questions have no {kind} {name!r}{meant}; accepted: {', '.join(names) or 'none'}"
        )


def _ask_all(
    model: Model,
    items: Sequence[Item],
    config: ScoreConfig,
    progress: Callable[[str, float], None] | None,
) -> list[Answer]:
    """The answers, in the order of `items`."""
    prompts = [_prompt(model, item, config) for item in items]
    answers: dict[int, Answer] = {}
    paths: tuple[Path, ...] = ()
    images: list[Any] = []
    # Questions about one image follow each other: it is decoded once, and the model still has what
    # its tower made of it.
    for place in sorted(range(len(items)), key=lambda place: items[place].images):
        item = items[place]
        if progress:
            progress(item.id, len(answers) / len(items))
        try:
            if item.images != paths:
                paths, images = item.images, [load_image(path) for path in item.images]
            answers[place] = model.generate(
                prompts[place],
                images,
                max_tokens=config.max_tokens,
                seed=config.seed,
                point=config.point,
            )
        except InputError as error:
            raise _naming(item, error) from error
    return [answers[place] for place in range(len(items))]


def _prompt(model: Model, item: Item, config: ScoreConfig) -> list[int]:
    thinking = None if config.thinking is None else THINKING[config.thinking]
    try:
        return model.token_ids(item.messages, len(item.images), thinking)
    except InputError as error:
        raise _naming(item, error) from error


def _naming(item: Item, error: InputError) -> InputError:
    return InputError(f"item {item.id!r} cannot be asked: {error}")


def _value(item: Item, field: str) -> str | None:
    """The item's value of a field of info as text; None where it has none."""
    if field not in item.info:
        return None
    value = item.info[field]
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _tallies(names: Sequence[str | None], rights: Sequence[float | None]) -> dict[str, Tally]:
    groups: dict[str, list[float | None]] = defaultdict(list)
    for name, right in zip(names, rights, strict=True):
        if name is not None:
            groups[name].append(right)
    return {name: _tally(group) for name, group in groups.items()}


def _tally(rights: Iterable[float | None]) -> Tally:
    known = [right for right in rights if right is not None]
    return Tally(n=len(known), right=sum(known, 0.0))
