"""How many of a task's questions a bundle answers rightly, and what the answers cost.

An answer is what follows the model's thought. It is right if it equals an accepted one, capitals
and white space aside; an item with `scoring: "vqa"` counts as far as people agree with it.
"""

from __future__ import annotations

import difflib
import json
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from operator import itemgetter
from statistics import fmean
from typing import TYPE_CHECKING

from tightrope.errors import InputError
from tightrope.profiles.measure import Request, encoded, measure
from tightrope.profiles.task.report import Record, Report
from tightrope.profiles.task.score_config import ScoreConfig
from tightrope.profiles.task.tally import tallies, tally
from tightrope.profiles.task.task import Item, Task
from tightrope.profiles.task.vqa import vqa_accuracy
from tightrope.progress import Progress, silent
from tightrope.runtime.thought import after_thought

if TYPE_CHECKING:
    from tightrope.runtime.answer import Answer
    from tightrope.runtime.model import Model


def score_task(
    model: Model, task: Task, config: ScoreConfig, progress: Progress = silent
) -> Report:
    """Asks the questions of `task` that `config` chooses, and counts right answers.

    progress: called with the item's id and the share that is done. Raises InputError for a
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
        overall=tally(rights),
        types=tallies([item.type for item in items], rights),
        by={field: tallies([_value(item, field) for item in items], rights) for field in config.by},
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
    model: Model, items: Sequence[Item], config: ScoreConfig, progress: Progress
) -> list[Answer]:
    """The answers, in the order of `items`."""
    requests = [encoded(model, _request(item, config)) for item in items]
    # Questions about one image follow each other: it is decoded once, and the model still has what
    # its tower made of it.
    order = sorted(range(len(items)), key=lambda place: items[place].images)
    asked = (requests[place] for place in order)
    answers = measure(model, asked, total=len(items), progress=progress)
    return [answer for _, answer in sorted(zip(order, answers, strict=True), key=itemgetter(0))]


def _request(item: Item, config: ScoreConfig) -> Request:
    return Request(
        name=item.id,
        prompt=item.messages,
        images=item.stills,
        frames=item.frames,
        max_tokens=config.max_tokens,
        seed=config.seed,
        point=config.point,
        thinking=config.thinking,
    )


def _value(item: Item, field: str) -> str | None:
    """The item's value of a field of info as text; None where it has none."""
    if field not in item.info:
        return None
    value = item.info[field]
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
