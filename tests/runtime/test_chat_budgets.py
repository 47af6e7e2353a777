"""Turns of a chat that have budgets: planned by what its slots hold, and kept like any other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tightrope.budget import Budget
from tightrope.bundle import Bundle
from tightrope.errors import BudgetUnreachable
from tightrope.latency import Stages, TowerTime
from tightrope.point import OperatingPoint
from tightrope.runtime.backends.backend import VisualTokens
from tightrope.runtime.chat import Chat
from tightrope.runtime.held import headers_of, hold_images
from tightrope.runtime.model import Model
from tightrope.runtime.plan import Asked, Plan
from tightrope.runtime.settings import resolve
from tightrope.runtime.workload import work_of

Find = Callable[[str], Path]
LATE: dict[str, Any] = {"budget": Budget(deadline_ms=1e6), "max_tokens": 4}
SMALL, LARGE = (OperatingPoint(resolution=side) for side in (28, 84))
PICTURE = np.zeros((84, 84, 3), np.uint8)


@pytest.fixture
def text(bundle: Find, machines: ModuleType, synthetic: ModuleType) -> Model:
    """A model without arithmetic that plans by a known latency model."""
    opened = Bundle.open(bundle("llama"))
    record = replace(synthetic.RECORD, model=machines.steady(synthetic.MODEL, 0.05))
    machine = machines.Machine(opened, [40], chunk_s=0.01, step_s=0.01)
    model: Model = machines.planned(machine, opened, record)
    return model


@pytest.fixture
def seeing(bundle: Find, machines: ModuleType, synthetic: ModuleType) -> Model:
    """The same of pictures: the larger they are read, the better and the slower."""
    opened = Bundle.open(bundle("llava"))
    tower = tuple(TowerTime(resolution=side, image_ms=2.0 * side) for side in (28, 84))
    record = replace(
        synthetic.RECORD, model=replace(machines.steady(synthetic.MODEL, 0.05), tower=tower)
    )
    rights = {SMALL: 80, LARGE: 180}
    scores = {at: [1.0] * right + [0.0] * (200 - right) for at, right in rights.items()}
    quality = machines.quality_of(scores)
    machine = machines.Machine(opened, [40])

    def vision(inputs: Any, cancel: Any) -> VisualTokens:
        assert opened.manifest.tower is not None
        tokens = opened.manifest.tower.most_tokens(inputs["pixel_values"].shape[-1])
        return VisualTokens(np.zeros((1, tokens, opened.manifest.dims.hidden_size), np.float32), {})

    machine.vision = vision
    model: Model = machines.planned(machine, opened, record, quality)
    return model


def learnt(model: Model, monkeypatch: pytest.MonkeyPatch) -> list[Stages]:
    """What its planner is told from now on; the pace stays as it is."""
    found: list[Stages] = []
    planner = model._loaded.planners[None]
    monkeypatch.setattr(planner, "record", lambda ttft, total, stages: found.append(stages))
    return found


def test_a_turn_is_planned_by_what_its_slots_hold(
    text: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted = learnt(text, monkeypatch)
    chat = text.chat()
    first, second = chat.ask("a" * 90, **LATE), chat.ask("and why ?", **LATE)
    assert first.plan is not None and second.plan is not None
    assert first.plan.cached_tokens == 0
    assert second.plan.cached_tokens == second.usage.cached_tokens > 90
    assert second.notes == () and second.deadline_met
    assert second.plan.ttft.p50_ms < first.plan.ttft.p50_ms
    afresh = text.generate(chat.messages[:-1], **LATE)
    assert afresh.plan is not None and afresh.plan.ttft.p50_ms > first.plan.ttft.p50_ms
    # And the pace is learnt by what each of them read.
    begun, went_on, whole = (stages.prefill_ms for stages in fitted)
    assert went_on < begun < whole


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.integers(1, 300), st.integers(1, 200), st.integers(1, 60), st.sampled_from((None, 70, 150))
)
def test_the_work_of_a_turn_is_what_it_has_the_backend_do(
    bundle: Find, machines: ModuleType, first: int, then: int, said: int, kv_budget: int | None
) -> None:
    opened = Bundle.open(bundle("llama"))
    machine = machines.Machine(opened, [40])
    model = Model(opened, machine, machine.clock)
    how: dict[str, Any] = {"point": OperatingPoint(kv_budget=kv_budget), "ignore_eos": True}
    chat = model.chat()
    chat.ask("x" * first, max_tokens=said, **how)
    ids = model.token_ids([*chat.messages, {"role": "user", "content": "y" * then}])
    begun = chat._conversation.begun(ids, [])
    assert begun is not None
    under = resolve(how["point"], opened.manifest)
    counted = work_of(model._loaded, len(ids), (), under, 5, begun=begun)
    calls, read = [], machine.prefill

    def noted(slots: Any, call: Any, *rest: Any) -> Any:
        calls.append((float(call.tokens_per_layer().mean()), float(slots.occupied.mean())))
        return read(slots, call, *rest)

    machine.prefill = noted
    answer = chat.ask("y" * then, max_tokens=5, **how)
    assert answer.usage.cached_tokens == counted.cached_tokens == begun.ordinal
    assert calls == [(call.tokens, call.occupied) for call in counted.work.prefill]
    assert answer.usage.occupied_slots == counted.occupied_slots


def turn(model: Model, chat: Chat, question: str, point: OperatingPoint, goes_on: bool) -> Plan:
    """The plan of a further turn of a chat about one picture, at this point."""
    messages, loaded = [*chat.messages, {"role": "user", "content": question}], model._loaded
    ids = model.token_ids(messages, 1)
    marks = loaded.language.marks(messages, ids, 1, None)
    begun = chat._conversation.begun(ids, hold_images([PICTURE])) if goes_on else None
    asked = Asked(
        budget=LATE["budget"],
        token_ids=tuple(ids),
        images=headers_of([PICTURE]),
        max_tokens=4,
        point=point,
        beginnings=loaded.prefixes.beginnings(ids, marks),
        begun=begun,
    )
    plan: Plan = loaded.planners[None].choose(asked).plan
    return plan


def test_a_point_that_reads_images_another_way_costs_all_that_was_said(
    seeing: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt(seeing, monkeypatch)
    question = "and now ?"
    for wanted in (SMALL, LARGE):
        chat = seeing.chat()
        chat.ask("what is it ?", [PICTURE], point=SMALL, **LATE)
        plans = {
            (at, goes_on): turn(seeing, chat, question, at, goes_on)
            for at in (SMALL, LARGE)
            for goes_on in (True, False)
        }
        assert plans[SMALL, True].total.p99_ms < plans[SMALL, False].total.p99_ms
        assert plans[LARGE, True] == plans[LARGE, False]
        needed = plans[wanted, True].total.p99_ms
        answer = chat.ask(question, budget=Budget(deadline_ms=needed * 1.001), max_tokens=4)
        assert answer.plan is not None and answer.plan.point == wanted
        assert answer.plan.cached_tokens == answer.usage.cached_tokens
        assert (answer.usage.cached_tokens > 0) is (wanted == SMALL)
        assert len(answer.notes) == (wanted != SMALL)
        assert answer.usage.visual_tokens == (0 if wanted == SMALL else 36)


def test_a_turn_that_is_refused_leaves_the_chat_as_it_was(text: Model) -> None:
    chat = text.chat()
    chat.ask("a" * 30, **LATE)
    before = list(chat.messages)
    with pytest.raises(BudgetUnreachable, match="cannot be met"):
        chat.ask("and ?", budget=Budget(deadline_ms=1e-3))
    assert chat.messages == before
    answer = chat.ask("and ?", **LATE)
    assert answer.usage.cached_tokens > 30 and answer.notes == ()


def test_a_deadline_is_kept_in_a_turn_that_is_streamed(text: Model) -> None:
    chat = text.chat()
    chat.ask("a" * 30, **LATE)
    budget = Budget(deadline_ms=200.0, if_unreachable="best_effort")
    *_, last = chat.stream("and ?", budget=budget, max_tokens=500, ignore_eos=True)
    answer = last.answer
    assert answer is not None and answer.finish_reason == "deadline"
    assert answer.deadline_met is False and 0 < len(answer.token_ids) < 500
    assert answer.timings.total_ms <= 200.0
    # What was said counts, and the next turn goes on behind it.
    after = chat.ask("so ?", **LATE)
    assert after.notes == () and after.usage.cached_tokens > 30 + len(answer.token_ids)


def test_a_conversation_holds_nothing_of_another_prompt(text: Model) -> None:
    chat = text.chat()
    chat.ask("a" * 30, **LATE)
    conversation = chat._conversation
    ids = text.token_ids([*chat.messages, {"role": "user", "content": "b"}])
    begun = conversation.begun(ids, [])
    assert begun is not None and begun.num_ids == len(conversation.keys)
    assert conversation.begun(ids[: begun.num_ids], []) is None  # nothing is left to be read
    assert conversation.begun([ids[0] + 1, *ids[1:]], []) is None
    conversation.reset()
    assert conversation.begun(ids, []) is None
