"""Counts, plans and what planners learn know which beginnings of prompts are kept."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tightrope.budget import Budget
from tightrope.bundle import Bundle
from tightrope.latency import Stages
from tightrope.latency_file import write_latency
from tightrope.runtime.cancel import Cancel
from tightrope.runtime.key import latency_key
from tightrope.runtime.model import Model

SYSTEM = "a rule of the house is to be kind. " * 4
KEPT = len(SYSTEM) + 2
"""The small models' template writes a mark before each message, and one before the question."""
LATE: dict[str, Any] = {"budget": Budget(deadline_ms=1e6), "max_tokens": 4}


def asked(question: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]


@pytest.fixture
def planned(bundle: Callable[[str], Path], machines: ModuleType, synthetic: ModuleType) -> Model:
    """A model without arithmetic that plans by a known latency model."""
    opened = Bundle.open(bundle("llama"))
    record = replace(synthetic.RECORD, model=machines.steady(synthetic.MODEL, 0.05))
    model: Model = machines.planned(
        machines.Machine(opened, [40], chunk_s=0.01, step_s=0.001), opened, record
    )
    return model


def test_a_count_predicts_what_a_kept_prefix_saves(
    loaded: Callable[[str], Model],
    synthetic: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TIGHTROPE_STATE", str(tmp_path / "state"))
    real = loaded("llama")
    model = Model(real.bundle, real.backend)
    key = latency_key(model.bundle, model.backend)
    write_latency(model.bundle, replace(synthetic.RECORD, key=key))
    before = model.count(asked("why ?"), max_tokens=4)
    model.generate(asked("where ?"), max_tokens=1)
    after = model.count(asked("why ?"), max_tokens=4)
    assert (before.cached_tokens, after.cached_tokens) == (0, KEPT)
    read = [sum(call.tokens for call in count.work.prefill) for count in (before, after)]
    assert read[0] - read[1] == KEPT
    # What is left is read in the same calls, over the same slots.
    assert after.work.prefill == before.work.prefill[-len(after.work.prefill) :]
    assert (before.occupied_slots, before.slot_bytes) == (after.occupied_slots, after.slot_bytes)
    assert before.prediction is not None and after.prediction is not None
    stages = [count.prediction.stages for count in (before, after) if count.prediction]
    assert stages[1].prefill_ms < stages[0].prefill_ms
    assert replace(stages[1], prefill_ms=0) == replace(stages[0], prefill_ms=0)
    answer = model.generate(asked("why ?"), max_tokens=4, ignore_eos=True)
    assert answer.usage.cached_tokens == after.cached_tokens
    assert answer.usage.occupied_slots == after.occupied_slots


def test_a_plan_counts_on_what_is_kept(planned: Model) -> None:
    first = planned.generate(asked("why ?"), **LATE)
    second = planned.generate(asked("where"), **LATE)
    assert first.plan is not None and second.plan is not None
    assert (first.plan.cached_tokens, second.plan.cached_tokens) == (0, KEPT)
    assert second.usage.cached_tokens == KEPT
    assert second.plan.ttft.p50_ms < first.plan.ttft.p50_ms
    assert second.to_dict()["plan"]["cached_tokens"] == KEPT
    for cached in (KEPT, 0):
        told = planned.count(asked("why ?"), **LATE).plan
        assert told is not None and told.cached_tokens == cached
        planned.forget_prefixes()


class Blocking:
    """Work that waits until it is let go."""

    def __init__(self) -> None:
        self.cancel, self.go = Cancel(), threading.Event()

    def run(self) -> Iterator[int]:
        assert self.go.wait(20)
        yield 0


def test_a_request_that_waited_is_planned_by_what_is_kept_when_it_runs(planned: Model) -> None:
    blocking = Blocking()
    ticket = planned._loaded.engine.submit(blocking)
    waiting = [planned.stream(asked(question), **LATE) for question in ("why ?", "where ?")]
    blocking.go.set()
    plans = [stream.answer().plan for stream in waiting]
    assert [plan.cached_tokens for plan in plans if plan is not None] == [0, KEPT]
    assert list(ticket) == [0]


def test_planners_learn_from_what_was_read_alone(
    planned: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[Stages] = []
    planner = planned._loaded.planners[None]
    monkeypatch.setattr(planner, "record", lambda ttft, total, stages: fitted.append(stages))
    for question in ("why ?", "where"):
        planned.generate(asked(question), **LATE)
    planned.forget_prefixes()
    planned.generate(asked("why ?"), **LATE)
    read, kept, again = (stages.prefill_ms for stages in fitted)
    assert kept < read == again
