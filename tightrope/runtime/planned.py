"""A request with a budget, from its plan to what the planner learns of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tightrope.budget import Budget
from tightrope.errors import BudgetUnreachable
from tightrope.runtime.answer import Sample, Timings
from tightrope.runtime.guard import Guard
from tightrope.runtime.images import image_header
from tightrope.runtime.loaded import Loaded
from tightrope.runtime.options import ImageSource, Options, Prompt
from tightrope.runtime.planner import Asked, Chosen, Planner, planner_of
from tightrope.runtime.settings import Settings
from tightrope.runtime.workload import work_of

if TYPE_CHECKING:
    from tightrope.runtime.stopwatch import Stopwatch


def plan(loaded: Loaded, prompt: Prompt, images: Sequence[ImageSource], options: Options) -> Chosen:
    """What a request of these arguments would spend now; nothing is submitted."""
    planner, asked = _asked(loaded, prompt, images, options)
    return planner.choose(asked)


class Planned:
    """One request's plan and its deadline."""

    def __init__(
        self,
        loaded: Loaded,
        prompt: Prompt,
        images: Sequence[ImageSource],
        options: Options,
        watch: Stopwatch,
    ) -> None:
        """Raises BudgetUnreachable, ProfileError and InputError before anything runs."""
        self._loaded, self._watch = loaded, watch
        self._planner, self._asked = _asked(loaded, prompt, images, options)
        self.chosen = self._planner.choose(self._asked)
        self._submitted_ms = self._waited_ms = 0.0

    @property
    def budget(self) -> Budget:
        return self._asked.budget

    def submit(self) -> None:
        """The request is handed to the device's thread."""
        self._submitted_ms = self._watch.elapsed_ms()
        plan = self.chosen.plan
        self._planner.waiting.submit(self, plan.total.p50_ms - plan.waiting_ms)

    def start(self) -> bool:
        """It runs now; whether the plan is another.

        So it may be where it waited longer than was expected, or where other beginnings are kept.
        """
        self._waited_ms = self._watch.elapsed_ms() - self._submitted_ms
        self._planner.waiting.start(self)
        plan, deadline = self.chosen.plan, self.budget.deadline_ms
        late = plan.total.p99_ms - plan.waiting_ms + self._waited_ms
        before, marks = self._asked.beginnings, self._asked.beginnings.marks
        now = self._loaded.prefixes.beginnings(self._asked.token_ids, marks)
        self._asked = replace(self._asked, beginnings=now)
        if deadline is None or (late <= deadline and now == before) or plan.best_effort:
            return False
        # It was admitted: now it is served as well as may be.
        budget = replace(self.budget, if_unreachable="best_effort")
        try:
            chosen = self._planner.choose(replace(self._asked, budget=budget), self._waited_ms)
        except BudgetUnreachable:
            return False
        self.chosen = chosen
        return chosen.plan.point != plan.point

    def needed_s(self) -> float:
        """Until the first token, as predicted; 0 where the caller wants to see what can be done."""
        if self.budget.if_unreachable == "best_effort":
            return 0.0
        plan = self.chosen.plan
        return max(0.0, plan.ttft.p50_ms - plan.waiting_ms - self._submitted_ms) / 1e3

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
        reused: frozenset[tuple[int, bytes]] | None,
    ) -> None:
        """Learn from what it took.

        new_images: which of them the tower had to look at. reused: what of the prompt was in kept
        slots, as `Beginnings` tells it; None where it was not begun: then it is taken as planned.
        """
        self.leave()
        if self._asked.rows > 1:  # the latency model knows of one answer at a time
            timings, completion_tokens = replace(timings, total_ms=timings.ttft_ms), 1
        images = tuple(
            replace(image, known=not new)
            for image, new in zip(self._asked.images, new_images, strict=True)
        )
        beginnings = self._asked.beginnings
        if reused is not None:
            beginnings = replace(beginnings, kept=reused)
        counted = work_of(self._loaded, num_ids, images, settings, completion_tokens, beginnings)
        fitted = self._planner.model.stages(counted.work)
        ttft, total = (ms - self._waited_ms for ms in (timings.ttft_ms, timings.total_ms))
        self._planner.record(ttft, total, fitted)

    def leave(self) -> None:
        """It is done, whatever came of it: nobody waits for it any more."""
        self._planner.waiting.finish(self)


def _asked(
    loaded: Loaded, prompt: Prompt, images: Sequence[ImageSource], options: Options
) -> tuple[Planner, Asked]:
    assert options.budget is not None
    planner, language = planner_of(loaded, options.budget.task), loaded.language
    token_ids = language.token_ids(prompt, len(images), options.thinking)
    marks = language.marks(prompt, token_ids, len(images), options.thinking)
    asked = Asked(
        budget=options.budget,
        token_ids=tuple(token_ids),
        images=tuple(map(image_header, images)),
        max_tokens=options.max_tokens,
        rows=options.n,
        thinking=options.thinking,
        point=options.point,
        beginnings=loaded.prefixes.beginnings(token_ids, marks),
    )
    return planner, asked
