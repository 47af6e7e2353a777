"""A request with a budget, from its plan to what the planner learns of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tightrope.budget import Budget
from tightrope.errors import BudgetUnreachable
from tightrope.latency import SourceImage
from tightrope.runtime.answer import Sample, Timings
from tightrope.runtime.conversation import Conversation
from tightrope.runtime.frames import prompt_ids
from tightrope.runtime.guard import Guard
from tightrope.runtime.held import HeldImage, headers_of
from tightrope.runtime.loaded import Loaded
from tightrope.runtime.options import ImageSource, Options, Prompt
from tightrope.runtime.plan import Asked, Chosen
from tightrope.runtime.planner import Planner
from tightrope.runtime.planners import planner_of
from tightrope.runtime.settings import Settings
from tightrope.runtime.waiting import Claim, Claimant, Load

if TYPE_CHECKING:
    from tightrope.runtime.stopwatch import Stopwatch


def plan(loaded: Loaded, prompt: Prompt, images: Sequence[ImageSource], options: Options) -> Chosen:
    """What a request of these arguments would spend now; nothing is submitted."""
    headers = headers_of(images, loaded.detail(options.budget))
    planner, asked = _asked(loaded, prompt, images, headers, options)
    now, waiting = loaded.clock(), loaded.engine.waiting
    return planner.choose(asked, waiting.expecting(waiting.load(_due(asked.budget, now), now), now))


class Planned:
    """One request's plan and its deadline."""

    def __init__(
        self,
        loaded: Loaded,
        prompt: Prompt,
        sources: Sequence[ImageSource],
        images: Sequence[HeldImage],
        options: Options,
        conversation: Conversation,
        watch: Stopwatch,
        request: Claimant,
    ) -> None:
        """images: the sources, held. conversation: that the prompt goes on with. request: for which
        the device's time is claimed.

        Raises BudgetUnreachable, ProfileError and InputError before anything runs.
        """
        self._loaded, self._watch = loaded, watch
        headers = [image.header for image in images]
        self._planner, asked = _asked(loaded, prompt, sources, headers, options)
        self._asked = replace(asked, begun=conversation.begun(asked.token_ids, images))
        waiting = loaded.engine.waiting
        with waiting.deciding:
            now, due = loaded.clock(), _due(self.budget, watch.start)
            self._planned_ms = watch.elapsed_ms()
            load = waiting.load(due, now)
            waiting.meet(load, now)
            load = replace(load, waiting_ms=load.waiting_ms + self._planned_ms)
            self.chosen = self._planner.choose(self._asked, waiting.expecting(load, now))
            self.claim = self._claim(self.chosen, due, now)
            waiting.add(request, self.claim)
        self._submitted_ms = 0.0

    @property
    def budget(self) -> Budget:
        return self._asked.budget

    def _claim(self, chosen: Chosen, due: float, now: float) -> Claim:
        """What was promised, and how long the device is needed for it."""
        plan, call = chosen.plan, chosen.call_ms / 1e3
        expected, late, first = (
            (ms - plan.waiting_ms) / 1e3
            for ms in (plan.total.p50_ms, plan.total.p99_ms, plan.ttft.p99_ms)
        )
        limits = ((self.budget.deadline_ms, late), (self.budget.first_token_ms, first))
        starts = [
            self._watch.start + limit / 1e3 - needed
            for limit, needed in limits
            if limit is not None
        ]
        if plan.best_effort or not starts:  # it makes nobody late that was promised something
            due = self._loaded.engine.waiting.patient_due(now)
            return Claim(due=due, expected_s=expected, late_s=late, call_s=call)
        # Where it is barely in time, nobody may come before it; more than that is not promised.
        latest = max(min(starts), now + plan.waiting_ms / 1e3)
        return Claim(due=due, latest_start=latest, expected_s=expected, late_s=late, call_s=call)

    def submit(self) -> None:
        """The request is handed to the device's thread."""
        self._submitted_ms = self._watch.elapsed_ms()

    def start(self) -> bool:
        """It runs now; whether the plan is another.

        So it may be where it waited longer than was expected, or where other beginnings are kept.
        """
        plan, deadline = self.chosen.plan, self.budget.deadline_ms
        waited = self._planned_ms + self._watch.elapsed_ms() - self._submitted_ms
        before = self._asked.beginnings
        now = self._loaded.prefixes.beginnings(self._asked.token_ids, before.marks, before.wholes)
        self._asked = replace(self._asked, beginnings=now)
        if deadline is None or plan.best_effort:
            return False
        if now == before and plan.total.p99_ms - plan.waiting_ms + waited <= deadline:
            return False
        # It was admitted: now it is served as well as may be.
        budget = replace(self.budget, if_unreachable="best_effort")
        asked = replace(self._asked, budget=budget)
        try:
            chosen = self._planner.choose(asked, Load(waiting_ms=waited))
        except BudgetUnreachable:
            return False
        self.chosen = chosen
        return chosen.plan.point != plan.point

    def needed_s(self) -> float:
        """Until the first token, as predicted; 0 where the caller wants to see what can be done."""
        if self.budget.if_unreachable == "best_effort":
            return 0.0
        plan, done = self.chosen.plan, self._submitted_ms - self._planned_ms
        return max(0.0, plan.ttft.p50_ms - plan.waiting_ms - done) / 1e3

    def guard(self) -> Guard | None:
        """The control that keeps the deadline; None where there is none."""
        if (deadline := self.budget.deadline_ms) is None:
            return None
        marks = self._loaded.language.thought
        return Guard(
            self._loaded.clock,
            self._watch.start + deadline / 1e3,
            token_s=self.chosen.token_ms / 1e3,
            answer_tokens=self.chosen.answer_tokens,
            close=None if marks is None else marks.close,
            ends=frozenset(self._loaded.language.ends) if self._asked.rows == 1 else None,
        )

    def met(self, timings: Timings, samples: Sequence[Sample]) -> bool | None:
        """Whether complete answers came in time; None without a limit of time."""
        budget = self.budget
        if budget.deadline_ms is None and budget.first_token_ms is None:
            return None
        complete = all(
            sample.finish_reason == "stop"
            or (
                sample.finish_reason == "length" and len(sample.token_ids) >= self._asked.max_tokens
            )
            for sample in samples
        )
        in_time = timings.total_ms <= (budget.deadline_ms or timings.total_ms)
        first = timings.ttft_ms <= (budget.first_token_ms or timings.ttft_ms)
        return complete and in_time and first

    def finish(
        self,
        settings: Settings,
        timings: Timings,
        num_ids: int,
        new_images: Sequence[bool],
        completion_tokens: int,
        known: int,
        reused: frozenset[tuple[int, bytes]] | None,
    ) -> None:
        """Learn from what it took.

        new_images: which of them the tower had to look at. known: ids of the prompt that were in
        the conversation's slots. reused: what of it was in kept slots, as `Beginnings` tells it;
        None where it was not begun: then it is taken as planned.
        """
        begun = self._asked.begun if known else None
        if known != (0 if begun is None else begun.num_ids):
            return  # another turn came between: nothing tells what this one found
        if self._asked.rows > 1:  # the latency model knows of one answer at a time
            timings, completion_tokens = replace(timings, total_ms=timings.ttft_ms), 1
        images = tuple(
            replace(image, known=not new)
            for image, new in zip(self._asked.images, new_images, strict=True)
        )
        beginnings = self._asked.beginnings
        if reused is not None:
            beginnings = replace(beginnings, kept=reused)
        work = self._planner.works.of(
            num_ids, images, settings, completion_tokens, beginnings, begun
        )
        fitted = self._planner.model.stages(work)
        ttft = timings.ttft_ms - self._watch.waited_ms
        total = timings.total_ms - self._watch.all_waited_ms
        self._planner.record(ttft, total, fitted)


def _asked(
    loaded: Loaded,
    prompt: Prompt,
    images: Sequence[ImageSource],
    headers: Sequence[SourceImage],
    options: Options,
) -> tuple[Planner, Asked]:
    assert options.budget is not None
    planner, language = planner_of(loaded, options.budget.task), loaded.language
    token_ids = prompt_ids(language, prompt, images, options.thinking)
    marks = language.marks(prompt, token_ids, len(images), options.thinking)
    asked = Asked(
        budget=options.budget,
        token_ids=tuple(token_ids),
        images=tuple(headers),
        max_tokens=options.max_tokens,
        rows=options.n,
        thinking=options.thinking,
        point=options.point,
        beginnings=loaded.prefixes.beginnings(token_ids, marks, loaded.wholes(token_ids)),
    )
    return planner, asked


def _due(budget: Budget, start: float) -> float:
    """The earliest limit of time, in seconds of the clock; infinite without one."""
    limits = (budget.deadline_ms, budget.first_token_ms)
    return min((start + limit / 1e3 for limit in limits if limit is not None), default=math.inf)
