"""Who runs first, who is let in, and that whoever was promised a deadline keeps it."""

from __future__ import annotations

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
from tightrope.runtime.waiting import (
    IDLE,
    NEWEST,
    PATIENCE_S,
    REMEMBERED_S,
    Claim,
    Load,
    Waiting,
)

Find = Callable[[str], Path]


@dataclass(eq=False)
class Asking:
    """A request of a simulation, in seconds."""

    come: float = 0.0
    deadline: float = math.inf
    takes: float = 0.0
    call: float = 1.0
    cancel: Cancel = field(default_factory=Cancel)


def promised(due: float, takes: float, late: float | None = None, call: float = 0.0) -> Claim:
    late = takes if late is None else late
    return Claim(due=due, latest_start=due - late, expected_s=takes, late_s=late, call_s=call)


def test_an_empty_device_is_idle() -> None:
    assert Waiting().load(5.0, now=0.0) == IDLE


def test_what_is_due_before_is_waited_for_and_what_is_due_later_leaves_room() -> None:
    waiting, requests = Waiting(), [Asking() for _ in range(3)]
    for request, due, takes in zip(requests, (1.0, 3.0, 4.0), (0.2, 0.5, 0.5), strict=True):
        waiting.add(request, promised(due, takes, call=0.3))
    first, middle, last = (waiting.load(due, now=0.0) for due in (0.5, 2.0, 9.0))
    assert first.waiting_ms == 0 and first.room_ms == pytest.approx(800)
    assert middle.waiting_ms == pytest.approx(200) and middle.room_ms == pytest.approx(2300)
    assert last.waiting_ms == pytest.approx(1200) and last.room_ms == math.inf
    assert first.others == 3 and first.busy_ms == pytest.approx(1200)
    waiting.start(requests[2], now=0.0)  # its call is before all others
    assert waiting.load(0.5, now=0.1).waiting_ms == pytest.approx(300)
    assert waiting.load(0.5, now=0.3).waiting_ms == pytest.approx(200)  # no more is left of it
    assert waiting.load(0.5, now=9.0).waiting_ms == 0
    waiting.finish(requests[2])
    assert waiting.load(9.0, now=0.1).waiting_ms == pytest.approx(700)


def test_as_many_others_are_expected_as_the_newest_met() -> None:
    waiting = Waiting()
    assert waiting.expecting(IDLE, now=0.0) == IDLE
    waiting.meet(Load(others=3), now=0.0)
    waiting.meet(Load(others=1), now=6.0)
    assert waiting.expecting(IDLE, now=REMEMBERED_S).others == 3
    assert waiting.expecting(Load(others=2, busy_ms=1.0), now=11.0) == Load(others=2, busy_ms=1.0)
    assert waiting.expecting(IDLE, now=11.0).others == 1
    assert waiting.expecting(IDLE, now=6.1 + REMEMBERED_S) == IDLE
    waiting.meet(Load(others=3), now=20.0)
    for _ in range(NEWEST):
        assert waiting.expecting(IDLE, now=20.0).others == 3
        waiting.meet(IDLE, now=20.0)
    assert waiting.expecting(IDLE, now=20.0) == IDLE


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


def test_who_runs_leaves_room_for_those_due_before_and_waits_meanwhile() -> None:
    waiting, running, behind = Waiting(), Asking(), Asking()
    waiting.add(running, promised(4.0, 1.0, call=0.3))
    waiting.start(running, now=0.0)
    load = waiting.load(2.0, now=0.5)
    assert load.waiting_ms == pytest.approx(300)
    assert load.room_ms == pytest.approx(4000 - 500 - 500)
    assert waiting.load(5.0, now=0.5).waiting_ms == pytest.approx(500)
    moments = iter([0.5, 2.5])
    with waiting.paused(running, lambda: next(moments)):
        load = waiting.load(3.0, now=1.5)
        assert load.waiting_ms == 0  # nothing of it runs
        assert load.room_ms == pytest.approx(4000 - 1500 - 500)
    assert waiting.load(5.0, now=2.7).waiting_ms == pytest.approx(300)
    waiting.add(behind, promised(4.5, 1.0))  # it has to wait for the rest of what runs
    assert waiting.load(2.0, now=2.7).room_ms == pytest.approx(4500 - 2700 - 1000 - 300)


ARRIVALS = st.lists(
    st.builds(
        Asking,
        come=st.floats(0.0, 3.0),
        deadline=st.one_of(st.just(math.inf), st.floats(0.05, 4.0)),
        takes=st.floats(0.01, 1.0),
        call=st.floats(0.01, 1.0),
    ),
    max_size=25,
)


@dataclass
class Device:
    """Runs calls, one after another, of whoever is due first, as the engine does it."""

    waiting: Waiting = field(default_factory=Waiting)
    now: float = 0.0
    due: dict[Asking, float] = field(default_factory=dict)
    """Of those that are not done, in the order in which they came."""
    left: dict[Asking, float] = field(default_factory=dict)
    """Of those that have begun."""
    paused: dict[Asking, Any] = field(default_factory=dict)
    ended: dict[Asking, float] = field(default_factory=dict)
    current: Asking | None = None
    call_ends: float = math.inf

    def run_until(self, moment: float) -> None:
        while True:
            if self.current is None:
                if not self.due:
                    self.now = moment
                    return
                self._go_on(self._first())
            if self.call_ends > moment:
                return
            self.now, request = self.call_ends, self.current
            assert request is not None
            if self.left[request] <= 1e-12:
                self.ended[request] = self.now
                self.waiting.finish(request)
                del self.due[request]
                self.current = None
            elif (first := self._first()) is request:
                self._call(request)
            else:
                self.paused[request] = self.waiting.paused(request, lambda: self.now)
                self.paused[request].__enter__()
                self._go_on(first)

    def _first(self) -> Asking:
        return min(self.due, key=lambda request: (self.due[request], request not in self.left))

    def _go_on(self, request: Asking) -> None:
        if request in self.left:
            self.paused.pop(request).__exit__(None, None, None)
        else:
            self.waiting.start(request, self.now)
            self.left[request] = request.takes
        self._call(request)

    def _call(self, request: Asking) -> None:
        takes = min(request.call, self.left[request])
        self.left[request] -= takes
        self.current, self.call_ends = request, self.now + takes


@given(ARRIVALS)
def test_whoever_is_let_in_is_in_time(arrivals: list[Asking]) -> None:
    device, admitted = Device(), []
    for request in sorted(arrivals, key=lambda asking: asking.come):
        now = request.come
        device.run_until(now)
        due, takes, call = now + request.deadline, request.takes, min(request.call, request.takes)
        if request.deadline == math.inf:
            due = device.waiting.patient_due(now)
            claim = Claim(due=due, expected_s=takes, late_s=takes, call_s=call)
        else:
            load = device.waiting.load(due, now)
            if load.waiting_ms / 1e3 + takes > request.deadline or takes > load.room_ms / 1e3:
                continue
            claim = promised(due, takes, call=call)
        device.waiting.add(request, claim)
        device.due[request] = claim.due
        admitted.append(request)
    device.run_until(math.inf)
    assert set(device.ended) == set(admitted)
    for request in admitted:
        assert device.ended[request] <= request.come + request.deadline + 1e-6
    if arrivals:  # an idle device refuses nobody that could be in time
        first = min(arrivals, key=lambda asking: asking.come)
        assert (first in device.ended) == (first.takes <= first.deadline)


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
    while not model._loaded.engine.waiting._runs:
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
    loaded: Callable[[str], Any], synthetic: ModuleType, monkeypatch: pytest.MonkeyPatch
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
    decode = real.backend.decode

    def waits(*arguments: Any) -> Any:
        """Until the urgent request is there, or a slow machine would answer the long one first."""
        if not reached.is_set():
            reached.set()
            ends = time.monotonic() + 20
            while not model._loaded.engine.is_awaited(math.inf) and time.monotonic() < ends:
                time.sleep(0.001)
        return decode(*arguments)

    reached = threading.Event()
    monkeypatch.setattr(real.backend, "decode", waits)
    stream = model.stream(prompt, max_tokens=200, **ask)
    assert reached.wait(20)
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


def test_an_answer_with_a_deadline_gives_way_to_a_nearer_one_and_both_are_held(held: Any) -> None:
    model, machine, gate, record = held
    order: list[int] = []
    prefill = machine.prefill

    def noted(slots: Any, call: Any, cancel: Any) -> Any:
        order.append(call.embeds.shape[1])
        return prefill(slots, call, cancel)

    machine.prefill = noted
    ask: dict[str, Any] = {"ignore_eos": True}
    far = Budget(deadline_ms=5000)
    long = model.stream(list(range(20, 120)), budget=far, max_tokens=40, **ask)
    begun(model)
    while not order:
        time.sleep(0.001)
    near = model.stream([30, 31], budget=Budget(deadline_ms=400), max_tokens=4, **ask)
    gate.set()
    urgent, answer = near.answer(), long.answer()
    assert order == [32, 2, 32, 32, 4]
    assert urgent.deadline_met and answer.deadline_met
    assert answer.usage.completion_tokens == 40  # the pause was none of its tokens' time
    assert answer.timings.queue_ms == pytest.approx(urgent.timings.total_ms, abs=5)
    spent = answer.timings.prefill_ms + answer.timings.decode_ms
    assert spent == pytest.approx(4 * 3.0 + 39 * 3.0)
    learnt = model._loaded.planners[None]
    alone = record.model.predict(model.count(list(range(20, 120)), max_tokens=40).work).stages
    assert learnt.paces.total._recent[-1] == pytest.approx(spent / alone.total_ms, rel=0.01)


def test_what_is_promised_too_tightly_lets_nobody_come_before(held: Any) -> None:
    model, _, gate, _ = held
    ask: dict[str, Any] = {"max_tokens": 40, "ignore_eos": True}
    alone = model.count("?", max_tokens=40, budget=Budget(deadline_ms=1e6)).plan.total.p99_ms
    tight = model.stream("?", budget=Budget(deadline_ms=1.2 * alone), **ask)
    begun(model)
    with pytest.raises(BudgetUnreachable, match="other requests are in its way"):
        model.stream("?", budget=Budget(deadline_ms=1.1 * alone), **ask)
    brief = model.stream("?", budget=Budget(deadline_ms=1.1 * alone), max_tokens=2)
    gate.set()
    assert brief.answer().deadline_met and tight.answer().deadline_met
