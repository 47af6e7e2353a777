"""Measure what operating points are worth: a race over the questions of a task.

Questions come in an order that a hash shuffles, so that any beginning of them is a fair sample.
Every point that still races is asked a question before the next one comes, those of one resolution
together: the tower sees an image once. What is known already is not asked again.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING

from tightrope.errors import InputError
from tightrope.point import OperatingPoint
from tightrope.profiles.quality.ask import Ask, Question, Reply, ask_here
from tightrope.profiles.quality.config import QualityConfig
from tightrope.profiles.quality.costs import Costs, work_of
from tightrope.profiles.quality.implied import implied
from tightrope.profiles.quality.points import Thoughts, choose_points
from tightrope.profiles.quality.race import FIRST_ROUND, leavers, round_ends
from tightrope.profiles.quality.report import Profiled
from tightrope.profiles.quality.store import Store, opened
from tightrope.profiles.task.score import rightness
from tightrope.profiles.task.task import Item, Task, task_digest
from tightrope.progress import Progress, silent
from tightrope.quality_file import Measure, Outcome, QualityKey
from tightrope.runtime.agreement import same_answer, token_agreement
from tightrope.runtime.candidates import unpruned
from tightrope.runtime.settings import resolve

if TYPE_CHECKING:
    from tightrope.runtime.model import Model

NO_THOUGHTS = Thoughts(can_be_left_out=False, longest=0)


def profile_quality(
    model: Model,
    task: Task,
    config: QualityConfig,
    *,
    ask: Ask | None = None,
    progress: Progress = silent,
    clock: Callable[[], float] = time.monotonic,
) -> Profiled:
    """Race the points of `model` on `task`, from where an earlier race of the same ended.

    Rightness is measured where the task has answers (questions without one are left out), else
    agreement with what is said at everything.
    ask: has questions answered; None: by `model`, which else answers none itself.
    clock: seconds, by which the time is kept.
    Raises InputError for a question or a budget that cannot be, ProfileError for a file of
    something else or that cannot be written.
    """
    known, measured = _questions(task)
    items = known[: config.limit]
    _check(model, items, config)
    key = QualityKey(
        bundle=model.bundle.digest,
        task=task_digest(task),
        task_name=config.name or task.folder.resolve().name,
        measure=measured,
        max_tokens=config.max_tokens,
    )
    with opened(model.bundle, key) as store:
        store.name_types({item.id: item.type for item in known})
        race = _Race(model, items, config, store, ask or ask_here(model), clock)
        complete = race.run(measured, progress)
        return Profiled(
            file=store.file,
            quality=store.quality(),
            questions=len(items),
            without_reference=len(task.items) - len(known),
            complete=complete,
            racing=len(race.racing),
            asked=race.asked,
            seconds=float(clock() - race.started),
            notes=(*store.notes, *race.notes),
        )


def _questions(task: Task) -> tuple[list[Item], Measure]:
    """Those that can be measured, shuffled; neither the task's order nor its other items count."""

    def place(item: Item) -> bytes:
        return hashlib.sha256(item.id.encode()).digest()

    known = [item for item in task.items if item.answers]
    return sorted(known or task.items, key=place), "accuracy" if known else "agreement"


def _check(model: Model, items: Sequence[Item], config: QualityConfig) -> None:
    """Raises InputError for what would end the race later."""
    manifest = model.bundle.manifest
    for point in choose_points(manifest, NO_THOUGHTS, config.kv_budgets):
        resolve(point, manifest)
    for item in items:
        work_of(model, unpruned(manifest), item)


class _Race:
    """Points, questions, and what is known."""

    def __init__(
        self,
        model: Model,
        items: Sequence[Item],
        config: QualityConfig,
        store: Store,
        ask: Ask,
        clock: Callable[[], float],
    ) -> None:
        self._model, self._items, self._config, self._store = model, items, config, store
        self._unpruned = unpruned(model.bundle.manifest)
        self._ask, self._clock, self.started = ask, clock, clock()
        self.racing: list[OperatingPoint] = []
        self.notes: tuple[str, ...] = ()
        self.asked = 0

    def run(self, measured: Measure, progress: Progress) -> bool:
        """Whether all was asked before the time was over."""
        return all(
            self._measure(items, points, measured, progress) for items, points in self._rounds()
        )

    def _rounds(self) -> Iterator[tuple[Sequence[Item], Sequence[OperatingPoint]]]:
        """Questions and the points that are asked them; before the next they have been."""
        known = self._store.outcomes
        first = self._items[:FIRST_ROUND]
        yield first, [self._unpruned]
        longest = max(known[self._unpruned][item.id].thinking_tokens for item in first)
        points = self._choose(longest)
        self.racing = [point for point in points if point not in self._store.beaten]
        costs = Costs(self._model, points, self._items)
        self.notes = () if costs.note is None else (costs.note,)
        for end in round_ends(len(self._items)):
            yield self._items[:end], self.racing
            self._look(self._items[:end], costs, len(points))

    def _measure(
        self,
        items: Sequence[Item],
        points: Sequence[OperatingPoint],
        measured: Measure,
        progress: Progress,
    ) -> bool:
        """Ask what is not known; whether the time sufficed."""
        self._imply(items, points)
        with contextlib.closing(
            self._ask(self._unknown(items, points), self._config.max_tokens)
        ) as replies:
            while not self._over(spent := self._clock() - self.started):
                progress(*self._told(spent))
                if (found := next(replies, None)) is None:
                    break
                self.asked += 1
                item, point, reply = found
                ids = reply.token_ids if point == self._unpruned else None
                outcome = self._outcome(measured, point, item, reply)
                self._store.add(point, outcome, self._prompt(item), ids)
        self._imply(items, points)
        return not self._unknown(items, points)

    def _over(self, spent: float) -> bool:
        return self._config.minutes is not None and spent >= self._config.minutes * 60

    def _unknown(self, items: Sequence[Item], points: Sequence[OperatingPoint]) -> list[Question]:
        """What has to be asked."""
        known = [(point, self._store.outcomes.get(point, {})) for point in _ordered(points)]
        questions = (
            Question(
                item=item,
                points=tuple(point for point, outcomes in known if item.id not in outcomes),
            )
            for item in items
        )
        return [question for question in questions if question.points]

    def _imply(self, items: Sequence[Item], points: Sequence[OperatingPoint]) -> None:
        """Keep what follows from what is known."""
        for question in self._unknown(items, points):
            for point in question.points:
                outcome = implied(point, question.item, self._store.outcomes)
                if outcome is not None:
                    self._store.add(point, outcome, self._prompt(question.item))

    def _choose(self, longest: int) -> tuple[OperatingPoint, ...]:
        config, manifest = self._config, self._model.bundle.manifest
        thoughts = Thoughts(can_be_left_out=self._can_leave_out(), longest=longest)
        return choose_points(manifest, thoughts, config.kv_budgets)[: config.points]

    def _can_leave_out(self) -> bool:
        """Whether the chat template offers an answer without a thought."""
        try:
            self._model.token_ids("?", thinking=False)
            self._model.token_ids("?", point=OperatingPoint(thinking_tokens=0))
        except InputError:
            return False
        return True

    def _look(self, items: Sequence[Item], costs: Costs, field: int) -> None:
        """Let those points go that another one beats."""
        known = {
            point: {item.id: self._store.outcomes[point][item.id] for item in items}
            for point in self.racing
        }
        spent = costs.of(
            {
                point: fmean(outcome.completion_tokens for outcome in outcomes.values())
                for point, outcomes in known.items()
            }
        )
        scores = {
            point: {name: outcome.score for name, outcome in outcomes.items()}
            for point, outcomes in known.items()
        }
        for point, winner in leavers(scores, spent, field).items():
            self._store.leave(point, winner)
            self.racing.remove(point)

    def _prompt(self, item: Item) -> tuple[int, ...]:
        return tuple(self._model.token_ids(item.messages, len(item.images)))

    def _outcome(
        self, measured: Measure, point: OperatingPoint, item: Item, reply: Reply
    ) -> Outcome:
        outcome = Outcome(
            question=item.id,
            score=1.0,
            token_agreement=1.0,
            text=reply.text,
            completion_tokens=reply.completion_tokens,
            thinking_tokens=reply.thinking_tokens,
            finish_reason=reply.finish_reason,
        )
        everything = self._store.outcomes[self._unpruned].get(item.id)
        ids = self._store.unpruned.get(item.id)
        if point != self._unpruned:
            # Not known where the point of everything has left the race.
            share = None if ids is None else token_agreement(reply.token_ids, ids)
            outcome = replace(outcome, token_agreement=share)
        if measured == "accuracy":
            right = rightness(item, reply.text)
            assert right is not None, "questions without a reference are left out"
            return replace(outcome, score=right)
        if point == self._unpruned:
            return outcome
        assert everything is not None, "nothing agrees more, so it never leaves"
        return replace(outcome, score=same_answer(reply.text, everything.text))

    def _told(self, spent: float) -> tuple[str, float]:
        """What progress says: how far, and how long it takes yet."""
        racing, questions = self.racing or [self._unpruned], len(self._items)
        done = sum(min(questions, len(self._store.outcomes[point])) for point in racing)
        gone = sum(len(self._store.outcomes[point]) for point in self._store.beaten)
        left = (len(self.racing) or self._config.points) * questions - done
        share = (done + gone) / max(1, done + gone + left)
        seconds = spent / self.asked * left if self.asked else None
        if self._config.minutes is not None:
            limit = self._config.minutes * 60
            share = max(share, spent / limit)
            seconds = limit - spent if seconds is None else min(seconds, limit - spent)
        told = "" if seconds is None else f", at most {seconds / 60:.0f} min left"
        return f"{len(racing)} points race{told}", min(1.0, share)


def _ordered(points: Sequence[OperatingPoint]) -> list[OperatingPoint]:
    """Those of one resolution together, unlimited thoughts before those that they imply."""
    return sorted(
        points, key=lambda point: (-(point.resolution or 0), point.thinking_tokens is not None)
    )
