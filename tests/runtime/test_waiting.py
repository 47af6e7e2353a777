"""Who runs first, who is let in, and that whoever was promised a deadline keeps it."""

from __future__ import annotations

import heapq
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.budget import Budget
from tightrope.bundle import Bundle
from tightrope.errors import BudgetUnreachable
from tightrope.latency_file import LatencyRecord
from tightrope.runtime.cancel import Cancel
from tightrope.runtime.engine import Engine
from tightrope.runtime.waiting import IDLE, PATIENCE_S, Claim, Waiting

Find = Callable[[str], Path]


@dataclass(eq=False)
class Asking:
    """A request of a simulation, in seconds."""

    come: float = 0.0
    deadline: float = math.inf
    takes: float = 0.0
    cancel: Cancel = field(default_factory=Cancel)


def promised(due: float, takes: float, late: float | None = None) -> Claim:
    late = takes if late is None else late
    return Claim(due=due, latest_start=due - late, expected_s=takes, late_s=late)


def test_an_empty_device_is_idle() -> None:
    assert Waiting().load(5.0, now=0.0) == IDLE


def test_what_is_due_before_is_waited_for_and_what_is_due_later_leaves_room() -> None:
    waiting, requests = Waiting(), [Asking() for _ in range(3)]
    for request, due, takes in zip(requests, (1.0, 3.0, 4.0), (0.2, 0.5, 0.5), strict=True):
        waiting.add(request, promised(due, takes))
    first, middle, last = (waiting.load(due, now=0.0) for due in (0.5, 2.0, 9.0))
    assert first.waiting_ms == 0 and first.room_ms == pytest.approx(800)
    assert middle.waiting_ms == pytest.approx(200) and middle.room_ms == pytest.approx(2300)
    assert last.waiting_ms == pytest.approx(1200) and last.room_ms == math.inf
    assert first.others == 3 and first.busy_ms == pytest.approx(1200)
    waiting.start(requests[2], now=0.0)  # what runs is before all others
    assert waiting.load(0.5, now=0.1).waiting_ms == pytest.approx(400)
    assert waiting.load(0.5, now=9.0).waiting_ms == 0
    waiting.finish(requests[2])
    assert waiting.load(9.0, now=0.1).waiting_ms == pytest.approx(700)


def test_not_all_are_late_at_once() -> None:
    waiting, requests = Waiting(), [Asking() for _ in range(2)]
    for request, late in zip(requests, (0.5, 0.6), strict=True):
        waiting.add(request, promised(1.0, 0.2, late))
    assert waiting.load(2.0, now=0.0).waiting_ms == pytest.approx(400 + 500)


def test_who_is_gone_or_late_already_is_not_waited_for() -> None:
    waiting, gone, cancelled, late = Waiting(), Asking(), Asking(), Asking()
    for request in (gone, cancelled, late):
        waiting.add(request, promised(1.0, 0.5))
    cancelled.cancel.ask()
    del gone, request
    load = waiting.load(0.9, now=0.8)  # the third could not be in time however soon it ran
    assert load.room_ms == math.inf and load.busy_ms == pytest.approx(500)


def test_without_a_deadline_it_is_behind_all_that_have_one_and_not_for_ever() -> None:
    waiting, near, far = Waiting(), Asking(), Asking()
    waiting.add(near, promised(2.0, 0.5))
    assert waiting.patient_due(now=1.0) == 1.0 + PATIENCE_S
    waiting.add(far, promised(500.0, 0.5))
    assert waiting.patient_due(now=1.0) == 500.0
    plain = Asking()
    waiting.add(plain, Claim(due=500.0, expected_s=3.0, late_s=3.0))
    assert waiting.load(501.0, now=1.0).waiting_ms == pytest.approx(4000)
    assert waiting.load(499.0, now=1.0).waiting_ms == pytest.approx(500)


ARRIVALS = st.lists(
    st.builds(
        Asking,
        come=st.floats(0.0, 3.0),
        deadline=st.one_of(st.just(math.inf), st.floats(0.05, 4.0)),
        takes=st.floats(0.01, 1.0),
    ),
    max_size=25,
)


@given(ARRIVALS)
def test_whoever_is_let_in_is_in_time(arrivals: list[Asking]) -> None:
    """One device, the earliest due first, nothing broken off: as the engine does it."""
    waiting = Waiting()
    queue: list[tuple[float, int, Asking]] = []
    ended: dict[Asking, float] = {}
    admitted: list[Asking] = []
    free = 0.0

    def run_until(now: float) -> float:
        moment = free
        while queue and moment <= now:
            _, _, request = heapq.heappop(queue)
            waiting.start(request, moment)
            running.append((request, moment + request.takes))
            moment += request.takes
            ended[request] = moment
        return max(moment, now) if not queue else moment

    running: list[tuple[Asking, float]] = []
    for number, request in enumerate(sorted(arrivals, key=lambda asking: asking.come)):
        now = request.come
        free = run_until(now)
        for done, end in list(running):
            if end <= now:
                waiting.finish(done)
        due = now + request.deadline
        if request.deadline == math.inf:
            claim = Claim(
                due=waiting.patient_due(now), expected_s=request.takes, late_s=request.takes
            )
        else:
            load = waiting.load(due, now)
            if load.waiting_ms / 1e3 + request.takes > request.deadline:
                continue
            if request.takes > load.room_ms / 1e3:
                continue
            claim = promised(due, request.takes)
        waiting.add(request, claim)
        admitted.append(request)
        heapq.heappush(queue, (claim.due, number, request))
    run_until(math.inf)
    assert set(ended) == set(admitted)
    for request in admitted:
        assert ended[request] <= request.come + request.deadline + 1e-9
    if arrivals:  # an idle device refuses nobody that could be in time
        first = min(arrivals, key=lambda asking: asking.come)
        assert (first in ended) == (first.takes <= first.deadline)


def test_the_engine_runs_the_earliest_due_first() -> None:
    engine, order, gate = Engine("test"), list[int](), threading.Event()

    class Work:
        def __init__(self, number: int) -> None:
            self.cancel, self.number = Cancel(), number

        def run(self) -> Iterator[int]:
            gate.wait(20)
            order.append(self.number)
            yield self.number

    dues = [0.0, 5.0, math.inf, 2.0, math.inf, 3.0]
    tickets = [engine.submit(Work(number), due) for number, due in enumerate(dues)]
    gate.set()
    assert [list(ticket) for ticket in tickets] == [[number] for number in range(6)]
    assert order == [0, 3, 5, 1, 2, 4]


@pytest.fixture
def held(
    bundle: Find, machines: ModuleType, synthetic: ModuleType
) -> tuple[Any, Any, threading.Event, LatencyRecord]:
    """A planned model whose machine takes what its file says, and waits at a gate before."""
    opened = Bundle.open(bundle("llama"))
    model = machines.steady(synthetic.MODEL, 0.0)
    record = replace(synthetic.RECORD, model=model)
    machine = machines.Machine(opened, [40], step_s=0.003, chunk_s=0.003)
    gate = threading.Event()
    prefill = machine.prefill

    def waits(*arguments: Any) -> Any:
        gate.wait(20)
        return prefill(*arguments)

    machine.prefill = waits
    return machines.planned(machine, opened, record), machine, gate, record


def begun(model: Any) -> None:
    """Wait until the engine has taken up the first request, which the gate then holds."""
    while not model._loaded.engine.waiting._starts:
        time.sleep(0.001)


def test_requests_that_are_promised_less_time_overtake_and_all_are_held(held: Any) -> None:
    model, machine, gate, _ = held
    ask: dict[str, Any] = {"max_tokens": 4, "ignore_eos": True}
    running = model.stream("?", **ask)
    begun(model)
    plain = model.stream("?", **ask)
    later = model.stream("?", budget=Budget(deadline_ms=5000), **ask)
    sooner = model.stream("?", budget=Budget(deadline_ms=900), **ask)
    gate.set()
    answers = [stream.answer() for stream in (running, plain, later, sooner)]
    queued = [answer.timings.queue_ms for answer in answers]
    assert queued[3] < queued[2] < queued[1]
    assert queued[0] > queued[3]  # what ran gave way
    assert answers[2].deadline_met and answers[3].deadline_met
    assert answers[3].plan.waiting_ms > 0
    assert model._loaded.engine.waiting.load(math.inf, machine.now) == IDLE


def test_who_would_make_others_late_is_refused_and_told_when_to_come(held: Any) -> None:
    model, _, gate, _ = held
    ask: dict[str, Any] = {"max_tokens": 40, "ignore_eos": True}
    alone = model.count("?", max_tokens=40, budget=Budget(deadline_ms=1e6)).plan.total.p99_ms
    running = model.stream("?", **ask)
    begun(model)
    before = model.stream("?", budget=Budget(deadline_ms=1.8 * alone), **ask)
    with pytest.raises(BudgetUnreachable, match="other requests are in its way") as late:
        model.stream("?", budget=Budget(deadline_ms=1.5 * alone), **ask)
    assert late.value.retry_ms is not None and late.value.retry_ms > 0
    with pytest.raises(BudgetUnreachable) as never:
        model.stream("?", budget=Budget(deadline_ms=alone / 2), **ask)
    assert never.value.retry_ms is None
    effort = Budget(deadline_ms=1.5 * alone, if_unreachable="best_effort")
    last = model.stream("?", budget=effort, **ask)
    gate.set()
    answers = [stream.answer() for stream in (running, before, last)]
    assert answers[1].deadline_met
    assert answers[1].timings.queue_ms < answers[2].timings.queue_ms


def test_what_lets_others_run_is_in_the_way_of_those_due_later_alone() -> None:
    waiting, plain, behind = Waiting(), Asking(), Asking()
    waiting.add(plain, Claim(due=60.0, expected_s=9.0, late_s=9.0, call_s=0.3))
    waiting.start(plain, now=0.0)
    assert waiting.load(2.0, now=1.0).waiting_ms == pytest.approx(300)
    assert waiting.load(70.0, now=1.0).waiting_ms == pytest.approx(8000)
    assert waiting.load(2.0, now=8.9).waiting_ms == pytest.approx(100)
    waiting.add(behind, promised(3.0, 1.0))
    assert waiting.load(2.0, now=1.0).room_ms == pytest.approx(2000 - 1000 - 300)


def test_a_long_answer_without_a_deadline_gives_way_between_tokens(
    loaded: Callable[[str], Any], bundle: Find, machines: ModuleType, synthetic: ModuleType
) -> None:
    """On the real backend: neither answer changes by it."""
    from tightrope.runtime.model import Model
    from tightrope.runtime.planner import Planner

    real = loaded("llama")
    model = Model(real.bundle, real.backend)
    planner = Planner(model._loaded, synthetic.RECORD, None)
    planner.warm = True
    model._loaded.planners[None] = planner
    ask: dict[str, Any] = {"ignore_eos": True, "logprobs": 1}
    prompt = list(range(20, 120))  # four chunks
    expected = [
        model.generate(prompt, max_tokens=200, **ask),
        model.generate(prompt[3:], max_tokens=5, **ask),
    ]
    stream = model.stream(prompt, max_tokens=200, **ask)
    next(stream)
    urgent = model.generate(prompt[3:], max_tokens=5, budget=Budget(deadline_ms=20000), **ask)
    pieces = list(stream)
    answer = pieces[-1].answer
    assert answer is not None
    assert [answer.logprobs, urgent.logprobs] == [one.logprobs for one in expected]
    assert urgent.deadline_met and urgent.timings.total_ms < answer.timings.total_ms
    assert answer.timings.queue_ms >= urgent.timings.prefill_ms + urgent.timings.decode_ms
    assert 0 < answer.timings.decode_ms < answer.timings.total_ms
    assert model._loaded.engine.waiting.load(math.inf, model._loaded.clock()) == IDLE


def test_a_long_prompt_gives_way_between_chunks(held: Any) -> None:
    model, machine, gate, _ = held
    order: list[tuple[str, int]] = []
    prefill = machine.prefill

    def noted(slots: Any, call: Any, cancel: Any) -> Any:
        order.append(("prefill", call.embeds.shape[1]))
        return prefill(slots, call, cancel)

    machine.prefill = noted
    long = model.stream(list(range(20, 120)), max_tokens=1)
    begun(model)
    while not order:
        time.sleep(0.001)
    urgent = model.stream([30, 31], budget=Budget(deadline_ms=5000), max_tokens=1)
    gate.set()
    assert urgent.answer().deadline_met
    assert long.answer().usage.prompt_tokens == 100
    assert [length for _, length in order] == [32, 2, 32, 32, 4]
