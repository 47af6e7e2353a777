"""Deadlines while an answer is written, on a clock that a script moves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightrope.budget import Budget, Unreachable
from tightrope.bundle import Bundle
from tightrope.errors import BudgetUnreachable
from tightrope.point import OperatingPoint
from tightrope.runtime.answer import Answer
from tightrope.runtime.backends import create_backend
from tightrope.runtime.controls import End, Force, State
from tightrope.runtime.guard import HANDOVER_S, LEAST_STEPS, MARGIN, STEPS, Guard
from tightrope.runtime.model import Model
from tightrope.runtime.options import Options
from tightrope.runtime.planners import planner_of
from tightrope.runtime.sampling import Sampler
from tightrope.runtime.stream import start

Find = Callable[[str], Path]
TOKEN_MS, CHUNK_MS = 10.0, 40.0
BEST: Unreachable = "best_effort"
ANSWER = 8
"""Tokens that are held back for an answer where no length of answers was measured."""


def state(length: int, thinking: int | None = None, forcing: bool = False) -> State:
    return State([7] * length, None, thinking, forcing, 100)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def guard(clock: Clock, deadline: float, **options: Any) -> Guard:
    usual: dict[str, Any] = {"token_s": 0.01, "answer_tokens": 4, "close": (8, 9)}
    return Guard(clock, deadline, **(usual | options))


def test_an_answer_ends_when_the_next_token_would_come_too_late() -> None:
    clock = Clock()
    keeps = guard(clock, 0.1 + HANDOVER_S)
    wishes = []
    for length in range(1, 11):
        wishes.append(keeps(state(length)))
        clock.now += 0.01
    # At 90 ms there are 10 left, and a token with its margin takes 11.
    assert wishes == [None] * 9 + [End("deadline")]


def test_a_thought_is_closed_when_the_rest_is_just_enough_for_its_answer() -> None:
    clock = Clock()
    keeps = guard(clock, 0.2 + HANDOVER_S)
    for length in range(1, 30):
        wish = keeps(state(length, thinking=length))
        if wish is not None:
            break
        clock.now += 0.01
    assert wish == Force((8, 9), shortens=True)
    reserve = 7 * 0.01 * MARGIN
    assert 0.2 - clock.now < reserve <= 0.2 - clock.now + 0.01


def test_a_model_without_thoughts_is_never_forced() -> None:
    clock = Clock()
    keeps = guard(clock, 0.05, close=None)
    assert keeps(state(1)) is None
    clock.now = 0.045
    assert keeps(state(2)) == End("deadline")


def test_a_close_that_is_under_way_is_not_begun_again() -> None:
    clock = Clock()
    keeps = guard(clock, 0.05)
    assert keeps(state(1, thinking=1, forcing=True)) is None
    assert keeps(state(1, thinking=1)) is not None


def test_the_prediction_counts_until_enough_steps_were_seen_where_it_is_slower() -> None:
    for slow, expected in ((True, 0.01), (False, 0.02)):
        clock = Clock()
        keeps = guard(clock, 100.0, token_s=0.01)
        for length in range(1, LEAST_STEPS + 1):
            keeps(state(length))
            clock.now += 0.005 if slow else 0.02
        assert keeps._token_s() == pytest.approx(expected)
    keeps(state(LEAST_STEPS + 1))
    assert keeps._token_s() == pytest.approx(0.02)


def test_the_newest_steps_decide() -> None:
    clock = Clock()
    keeps = guard(clock, 1000.0)
    for length in range(1, 60):
        keeps(state(length))
        clock.now += 0.01 if length < 60 - STEPS - 1 else 0.03
    assert keeps._token_s() == pytest.approx(0.03)


def test_a_pause_is_no_step() -> None:
    clock = Clock()
    keeps = guard(clock, 1000.0)
    keeps.pause(1.0)  # before its first token
    clock.now = 1.0
    for length in range(1, LEAST_STEPS + 3):
        keeps(state(length))
        clock.now += 0.01
        if length == LEAST_STEPS:
            keeps.pause(5.0)
            clock.now += 5.0
    assert keeps._token_s() == pytest.approx(0.01)


def test_a_token_that_another_control_took_is_no_longer_step() -> None:
    clock = Clock()
    keeps = guard(clock, 1000.0)
    for length in (1, 2, 3, 7, 8):  # four tokens were forced in between
        clock.now = 0.01 * length
        keeps(state(length))
    assert keeps._token_s() == pytest.approx(0.01)


def test_rows_that_grow_together_see_one_step() -> None:
    clock = Clock()
    keeps = guard(clock, 1000.0)
    for length in range(1, 8):
        for _ in range(3):
            keeps(state(length))
            clock.now += 1e-4
        clock.now += 0.01
    assert keeps._token_s() == pytest.approx(0.0103)


def test_what_needs_more_than_is_left_is_hopeless() -> None:
    clock = Clock()
    keeps = guard(clock, 0.1)
    assert not keeps.hopeless()
    assert not keeps.hopeless(0.09)
    assert keeps.hopeless(0.1)
    clock.now = 0.1
    assert keeps.hopeless()


Make = Callable[..., Model]


@pytest.fixture(scope="session")
def make(bundle: Find, thinker: Find, machines: ModuleType, synthetic: ModuleType) -> Make:
    """`make("told", tokens, step_s=...)`: its latency file says TOKEN_MS a token, CHUNK_MS a call.

    What it then takes is another matter.
    """

    def model(name: str, tokens: Sequence[int], quality: Any = None, **speed: Any) -> Model:
        opened = Bundle.open(bundle("llama") if name == "llama" else thinker(name))
        usual: dict[str, Any] = {"step_s": TOKEN_MS / 1e3, "chunk_s": CHUNK_MS / 1e3}
        machine = machines.Machine(opened, tokens, **(usual | speed))
        made: Model = machines.planned(machine, opened, record(synthetic, machines), quality)
        return made

    return model


def record(synthetic: ModuleType, machines: ModuleType) -> Any:
    exact = machines.steady(synthetic.MODEL, 0.05)
    fitted = replace(
        exact,
        prefilling=replace(
            exact.prefilling,
            token_ms=(0.0, 0.0, 0.0),
            pair_ms=0.0,
            call_ms=CHUNK_MS,
            behind_tower_ms=0.0,
        ),
        stepping=replace(exact.stepping, start_ms=0.0, token_ms=TOKEN_MS, slot_ms=0.0),
        hosting=replace(exact.hosting, request_ms=0.0, token_ms=0.0),
    )
    return replace(synthetic.RECORD, model=fitted)


def ask(model: Model, deadline_ms: float, prompt: Any = "what", **options: Any) -> Answer:
    budget = Budget(deadline_ms=deadline_ms, if_unreachable=BEST)
    return model.generate(prompt, budget=budget, **options)


def test_a_thought_is_closed_so_that_its_answer_is_there_in_time(
    make: Make, machines: ModuleType
) -> None:
    # Closed, the model answers with five tokens: it counts its calls, so that they follow.
    model = make("told", [254, *[40] * 500])
    answer = ask(model, 1000, max_tokens=400)
    thought, close = answer.usage.thinking_tokens, len(machines.CLOSE)
    assert answer.usage.injected_tokens == close
    assert answer.token_ids[: 1 + thought + close] == (254, *[40] * thought, *machines.CLOSE)
    behind = len(answer.token_ids) - 1 - thought - close
    assert behind >= ANSWER  # the reserve was enough for all of it
    assert answer.finish_reason == "deadline" and answer.deadline_met is False
    assert 900 < answer.timings.total_ms <= 1000


def test_an_answer_behind_a_closed_thought_is_cut_and_not_met(
    make: Make, machines: ModuleType
) -> None:
    tokens = [40] * 200
    model = make("opened", tokens)
    free = ask(model, 10_000, max_tokens=200)
    assert free.usage.injected_tokens == 0 and free.deadline_met
    at = 60  # about where the thought ends
    tokens[at:] = [41, 42, machines.END, *[43] * 100]
    answer = ask(make("opened", tokens), CHUNK_MS + TOKEN_MS * (at + 5), max_tokens=200)
    assert answer.token_ids[-1] == machines.END
    assert answer.usage.injected_tokens == len(machines.CLOSE)
    # Whole as it may be, the model had not thought to its end.
    assert (answer.finish_reason, answer.stop, answer.deadline_met) == ("deadline", None, False)


def test_a_measured_answer_length_is_the_reserve(make: Make, machines: ModuleType) -> None:
    for answer_tokens in (2, 30):
        quality = machines.quality_of(
            {OperatingPoint(): [1.0] * 20}, tokens=100 + answer_tokens, thinking=100
        )
        answer = ask(make("opened", [40] * 500, quality), 1500, max_tokens=400)
        behind = len(answer.token_ids) - answer.usage.thinking_tokens - len(machines.CLOSE)
        assert answer_tokens <= behind <= 1.2 * answer_tokens + 3


@pytest.mark.parametrize("over", [1.0, 1.2, 2.0])
def test_steps_that_grow_slower_than_predicted_still_come_in_time(over: float, make: Make) -> None:
    """Throttling: from some step on every one takes so much longer."""
    for begins in (0, 10, 40, 80):

        def step_s(number: int, begins: int = begins) -> float:
            return TOKEN_MS / 1e3 * (over if number >= begins else 1.0)

        answer = ask(make("told", [254, *[40] * 500], step_s=step_s), 1000, max_tokens=400)
        # The mean of the last steps follows one that doubles within some tokens.
        assert answer.timings.total_ms <= (1000 if over <= 1.2 else 1000 + 2 * TOKEN_MS)
        assert answer.usage.injected_tokens == 4
        behind = len(answer.token_ids) - 1 - answer.usage.thinking_tokens - 4
        assert behind >= (ANSWER - 1 if over <= 1.2 else ANSWER // 3)


def test_a_prompt_is_not_begun_when_its_deadline_has_passed(make: Make) -> None:
    model = make("llama", [40] * 50)
    machine: Any = model.backend
    answer = ask(model, 0.5)
    assert (answer.text, answer.token_ids, answer.finish_reason) == ("", (), "deadline")
    assert machine.chunks == 0
    assert answer.deadline_met is False and answer.plan is not None and answer.plan.best_effort


def test_a_prompt_is_given_up_between_its_chunks(make: Make) -> None:
    model = make("llama", [40] * 50, chunk_s=0.1)
    machine: Any = model.backend
    size = model.bundle.manifest.prefill_chunk
    budget = Budget(deadline_ms=420)  # eight chunks are predicted to take 320
    answer = model.generate([30] * (8 * size), max_tokens=2, budget=budget)
    assert answer.finish_reason == "deadline" and answer.token_ids == ()
    assert machine.chunks == 1  # 100 ms for one of eight says it all
    assert answer.timings.total_ms == pytest.approx(100)
    assert answer.usage.occupied_slots == 0


def test_what_was_given_up_teaches_the_pace(make: Make) -> None:
    """Else a machine that became slow would be planned for as a fast one for ever."""
    model = make("llama", [40] * 50, chunk_s=0.1)
    size = model.bundle.manifest.prefill_chunk
    for _ in range(2):
        model.generate([30] * (8 * size), max_tokens=2, budget=Budget(deadline_ms=420))
    assert planner_of(model._loaded, None).paces.total.level == pytest.approx(2.5)
    # So the next is told that it cannot be, instead of failing.
    with pytest.raises(BudgetUnreachable):
        model.generate([30] * (8 * size), max_tokens=2, budget=Budget(deadline_ms=420))


def test_several_answers_teach_the_pace_by_their_first_token(make: Make) -> None:
    model = make("llama", [40] * 50, chunk_s=0.12, step_s=0.03)
    for _ in range(3):
        ask(model, 5000, n=3, max_tokens=5)
    assert planner_of(model._loaded, None).paces.total.level == pytest.approx(3.0)


@pytest.mark.parametrize("n", [2, 3])
def test_several_rows_are_kept_together(n: int, make: Make, machines: ModuleType) -> None:
    answer = ask(make("opened", [40] * 500), 1000, n=n, max_tokens=400)
    assert answer.samples is not None and len(answer.samples) == n
    for sample in answer.samples:
        assert sample.finish_reason == "deadline"
        assert (
            tuple(sample.token_ids[answer.usage.thinking_tokens // n :][: len(machines.CLOSE)])
            == machines.CLOSE
        )
    assert answer.timings.total_ms <= 1000


def test_a_stream_ends_as_its_answer_does(make: Make) -> None:
    budget = Budget(deadline_ms=700, if_unreachable=BEST)
    pieces = list(make("told", [254, *[40] * 500]).stream("what", budget=budget, max_tokens=400))
    answer = pieces[-1].answer
    assert answer is not None and answer.finish_reason == "deadline"
    assert "".join(piece.text for piece in pieces) == answer.text
    whole = ask(make("told", [254, *[40] * 500]), 700, max_tokens=400)
    assert whole.token_ids == answer.token_ids


def test_an_answer_in_time_is_met(make: Make, machines: ModuleType) -> None:
    stopped = ask(make("llama", [40, 41, machines.END]), 300, max_tokens=8)
    assert (stopped.finish_reason, stopped.deadline_met) == ("stop", True)
    full = ask(make("llama", [40] * 9), 300, max_tokens=8)
    assert (full.finish_reason, full.deadline_met) == ("length", True)
    cut = ask(make("llama", [40] * 99), 300, max_tokens=80)
    assert (cut.finish_reason, cut.deadline_met) == ("deadline", False)


def test_full_slots_are_no_complete_answer(make: Make) -> None:
    model = make("llama", [40] * 99, chunk_s=0.0)
    slots = model.bundle.manifest.slots
    answer = ask(model, 1e6, [30] * (slots - 8), max_tokens=100)
    assert (answer.finish_reason, answer.deadline_met) == ("length", False)


def test_a_first_token_in_time_is_met_by_itself(make: Make) -> None:
    model = make("llama", [40] * 9)
    budget = Budget(first_token_ms=CHUNK_MS + 10)
    assert model.generate("what", max_tokens=4, budget=budget).deadline_met is True
    late = make("llama", [40] * 9, chunk_s=0.06)
    assert late.generate("what", max_tokens=4, budget=budget).deadline_met is False
    both = Budget(first_token_ms=CHUNK_MS + 10, deadline_ms=500)
    assert late.generate("what", max_tokens=4, budget=both).deadline_met is False


def test_without_a_limit_of_time_nothing_is_met_or_missed(make: Make, machines: ModuleType) -> None:
    quality = machines.quality_of({OperatingPoint(): [1.0] * 4})
    model = make("llama", [40] * 9, quality)
    answer = model.generate("what", max_tokens=4, budget=Budget(min_quality=0.5))
    assert answer.deadline_met is None and answer.plan is not None


@pytest.mark.parametrize("streams", [False, True])
def test_a_machine_that_stalls_in_a_thought_leaves_the_answer_that_was_kept(
    streams: bool, make: Make, machines: ModuleType
) -> None:
    def answer_of(stall: int) -> Answer:
        model = make("opened", [40] * 500, step_s=lambda number: 5.0 if number == stall else 0.01)
        budget = Budget(deadline_ms=4000)
        if not streams:
            return model.generate("what", budget=budget, max_tokens=350)
        *pieces, last = model.stream("what", budget=budget, max_tokens=350)
        assert last.answer is not None
        assert "".join(piece.text for piece in pieces) + last.text == last.answer.text
        return last.answer

    early, late = answer_of(90), answer_of(300)
    for answer in (early, late):
        assert (answer.finish_reason, answer.deadline_met) == ("deadline", False)
    # Half of the time was not over.
    assert early.token_ids == (40,) * 92 and early.usage.injected_tokens == 0
    thought, close = late.usage.thinking_tokens, machines.CLOSE
    assert thought == 302 - len(close) - ANSWER  # steps that the kept answer took
    assert late.token_ids == (*[40] * thought, *close, *[40] * ANSWER)
    assert late.usage.injected_tokens == len(close)
    assert late.text == "C" * thought + "\n</think>\n\n" + "C" * ANSWER


def test_a_short_thought_is_not_interrupted_for_an_answer_to_keep(make: Make) -> None:
    """It would cost more than a tenth of its time."""
    model = make("opened", [40] * 500)
    machine: Any = model.backend
    answer = ask(model, 1000, max_tokens=400)
    assert machine.steps == len(answer.token_ids) - 1


class Ticking:
    """A real backend whose steps take scripted time."""

    def __init__(self, backend: Any) -> None:
        self._backend, self.now, self.steps = backend, 0.0, 0

    def clock(self) -> float:
        return self.now

    def decode(self, *arguments: Any) -> Any:
        self.now, self.steps = self.now + TOKEN_MS / 1e3, self.steps + 1
        return self._backend.decode(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)


@pytest.mark.parametrize("kv_budget", [None, 64])
def test_an_answer_that_was_kept_leaves_no_trace_in_what_follows(
    kv_budget: int | None,
    thinker: Find,
    machines: ModuleType,
    synthetic: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened = Bundle.open(thinker("opened"))
    backend = create_backend("onnxruntime", opened, 1)
    seen: dict[float, list[Any]] = {}
    steps = {}
    for share in (0.0, 10.0):  # never, and whatever it costs
        monkeypatch.setattr("tightrope.runtime.guard.DRAFT_SHARE", share)
        ticking = Ticking(backend)
        model = machines.planned(ticking, opened, record(synthetic, machines))
        sampler, logits = Sampler(0.9, 1.0, 3), seen.setdefault(share, [])

        def choose(row: Any, sampler: Sampler = sampler, logits: list[Any] = logits) -> Any:
            logits.append(row.copy())
            return sampler(row)

        options = Options(
            max_tokens=150,
            ignore_eos=True,
            budget=Budget(deadline_ms=2000),
            point=OperatingPoint(kv_budget=kv_budget),
        )
        answer = start(model._loaded, "what", (), options, choose).answer()
        assert answer.usage.injected_tokens == 0
        steps[share] = ticking.steps
        seen[share].append(answer.token_ids)
    assert 4 + 2 <= steps[10.0] - steps[0.0] <= 4 + ANSWER
    *without, ids = seen[0.0]
    *with_it, same = seen[10.0]
    assert ids == same and len(without) == len(with_it) == 150
    for ours, theirs in zip(with_it, without, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@settings(deadline=None, max_examples=80)
@given(
    st.floats(20, 1500),
    st.lists(st.floats(0.0, 60.0), min_size=1, max_size=200),
    st.lists(st.floats(0.0, 200.0), min_size=1, max_size=6),
    st.sampled_from(("llama", "told", "opened")),
    st.integers(1, 3),
    st.booleans(),
    st.sampled_from((0.1, 10.0)),
)
def test_no_request_passes_its_deadline_by_more_than_what_was_under_way(
    make: Make,
    deadline: float,
    steps_ms: list[float],
    chunks_ms: list[float],
    name: str,
    n: int,
    long: bool,
    draft_share: float,
) -> None:
    taken: list[float] = []

    def of(times: list[float]) -> Callable[[int], float]:
        def seconds(number: int) -> float:
            taken.append(times[number % len(times)])
            return taken[-1] / 1e3

        return seconds

    model = make(name, [254, *[40] * 300], step_s=of(steps_ms), chunk_s=of(chunks_ms))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tightrope.runtime.guard.DRAFT_SHARE", draft_share)
        answer = ask(model, deadline, [30] * (100 if long else 10), n=n, max_tokens=150)
    total = answer.timings.total_ms
    assert total == pytest.approx(sum(taken))
    # All calls but the last one began in time.
    assert total - (taken[-1] if taken else 0.0) < deadline
    if answer.deadline_met:
        assert total <= deadline


@settings(deadline=None, max_examples=40)
@given(st.floats(250, 1500), st.lists(st.floats(8.5, 11.0), min_size=5, max_size=100))
def test_steps_near_the_prediction_leave_every_answer_its_reserve(
    make: Make, deadline: float, steps_ms: list[float]
) -> None:
    def step_s(number: int) -> float:
        return steps_ms[number % len(steps_ms)] / 1e3

    answer = ask(make("opened", [40] * 400, step_s=step_s), deadline, max_tokens=300)
    assert answer.timings.total_ms <= deadline
    assert answer.usage.injected_tokens == 4
    behind = len(answer.token_ids) - answer.usage.thinking_tokens - 4
    assert behind >= ANSWER - 1
