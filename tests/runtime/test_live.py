"""What requests leave behind: the right numbers, off their path, and where a new process begins."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import tightrope as tr
from tightrope.errors import InputError, ProfileError
from tightrope.latency import LatencyModel, Stages
from tightrope.latency_file import write_latency
from tightrope.live_file import Entry, LiveRequest, append, live_file, read_requests
from tightrope.quality_file import point_of
from tightrope.runtime import live
from tightrope.runtime.backends.onnxruntime import OnnxRuntimeBackend
from tightrope.runtime.key import latency_key
from tightrope.runtime.live import Ring, Writer, keep_times
from tightrope.runtime.loaded import Loaded
from tightrope.runtime.model import Model

Find = Callable[[str], Path]
OPTIONS: dict[str, Any] = {"max_tokens": 5, "ignore_eos": True}


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "state"
    monkeypatch.setenv("TIGHTROPE_STATE", str(folder))
    return folder


@pytest.fixture(autouse=True)
def writer(monkeypatch: pytest.MonkeyPatch) -> Writer:
    """One of the test's own, that waits for nothing."""
    found = Writer(batch_s=0.01)
    monkeypatch.setattr(live, "WRITER", found)
    return found


@pytest.fixture
def kept(writer: Writer) -> Callable[[Model, int], list[LiveRequest]]:
    """`kept(model, n)`: the requests in its ring, once `n` are there."""

    def read(model: Model, number: int) -> list[LiveRequest]:
        file, key = live_file(model.bundle), latency_key(model.bundle, model.backend)
        ends = time.monotonic() + 20
        found: list[Entry[LiveRequest]] = []
        while len(found) < number and time.monotonic() < ends:
            time.sleep(0.02)
            writer.flush()
            found = read_requests(file, key)
        assert len(found) == number
        return [entry.value for entry in found]

    return read


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Prompts are read once it is set, however slow the machine: till then they wait."""
    opened, prefill = threading.Event(), OnnxRuntimeBackend.prefill

    def held(*arguments: Any) -> Any:
        assert opened.wait(20)
        return prefill(*arguments)

    monkeypatch.setattr(OnnxRuntimeBackend, "prefill", held)
    return opened


def load(bundle: Path, **more: Any) -> Model:
    return tr.load(bundle, "onnxruntime", 1, **more)


def made(num_ids: int, took: Stages) -> LiveRequest:
    return LiveRequest(
        point="{}",
        num_ids=num_ids,
        images=(),
        completion_tokens=9,
        answers=1,
        marks=(),
        reused=(),
        later_turn=False,
        cold=False,
        took=took,
    )


def test_a_request_leaves_what_it_did_and_what_it_took(
    bundle: Find, kept: Callable[[Model, int], list[LiveRequest]]
) -> None:
    model = load(bundle("llava"))
    image = np.full((40, 30, 3), 90, np.uint8)
    point = tr.OperatingPoint(resolution=56, selector="divprune", keep="50%")
    answers = [model.generate("what?", [image], point=point, **OPTIONS) for _ in range(2)]
    before = time.time()
    first, second = kept(model, 2)
    assert point_of(first.point) == point
    assert first.num_ids == len(model.token_ids("what?", 1))
    assert (first.completion_tokens, first.answers, first.later_turn) == (5, 1, False)
    ((shown,), (again,)) = first.images, second.images
    assert (shown.format, shown.width, shown.height, shown.known) == ("array", 30, 40, False)
    assert again == replace(shown, known=True)
    assert (first.cold, second.cold) == (True, False)
    for answer, request in zip(answers, (first, second), strict=True):
        took, timings = request.took, answer.timings
        assert took.prefill_ms == timings.prefill_ms and took.vision_ms == timings.vision_ms
        assert took.decode_ms == timings.decode_ms
        assert 0 < took.ttft_ms <= timings.ttft_ms
    (entry, _) = read_requests(live_file(model.bundle), latency_key(model.bundle, model.backend))
    assert before - 60 < entry.time_s <= before + 60


def test_what_waits_to_be_written_keeps_no_bundle_in_memory(
    loaded: Callable[[str], Model], parts_of: Callable[[Model], Loaded]
) -> None:
    parts = parts_of(loaded("llama"))
    ring, there = keep_times(parts), weakref.ref(parts)
    ring.failed(ProfileError("the disk is full"))
    assert parts.unsaid() == ("the disk is full",)
    del parts
    gc.collect()
    assert there() is None
    ring.failed(ProfileError("nobody is there to read it"))


def test_turns_samples_and_budgets_are_told_apart(
    bundle: Find, kept: Callable[[Model, int], list[LiveRequest]], synthetic: ModuleType
) -> None:
    model = load(bundle("llama"))
    key = latency_key(model.bundle, model.backend)
    write_latency(model.bundle, replace(synthetic.RECORD, key=key))
    model.generate("one", n=3, **OPTIONS)
    chat = model.chat()
    chat.ask("two", **OPTIONS)
    chat.ask("three", **OPTIONS)
    # Its warming up is nobody's request, and is none that is cold.
    model.generate("four", budget=tr.Budget(deadline_ms=1e6), **OPTIONS)
    found = kept(model, 4)
    assert [request.answers for request in found] == [3, 1, 1, 1]
    assert [request.later_turn for request in found] == [False, False, True, False]
    assert [request.cold for request in found] == [True, False, False, False]


def test_waiting_for_others_is_no_time_of_ones_own(
    bundle: Find, kept: Callable[[Model, int], list[LiveRequest]], gate: threading.Event
) -> None:
    model = load(bundle("llama"))
    warm = model.stream("warm", **OPTIONS)
    long = model.stream(list(range(20, 60)), max_tokens=400, ignore_eos=True)
    short = model.stream("short", **OPTIONS)
    gate.set()
    warm.answer()
    waited, ran = short.answer().timings, long.answer().timings
    _, first, second = kept(model, 3)
    assert first.completion_tokens == 400 and second.completion_tokens == 5
    assert waited.ttft_ms > ran.total_ms / 2 > second.took.ttft_ms


def test_what_is_given_up_before_its_first_token_is_not_kept(
    bundle: Find, kept: Callable[[Model, int], list[LiveRequest]], gate: threading.Event
) -> None:
    model = load(bundle("llama"))
    blocking = model.stream(list(range(20, 60)), max_tokens=200, ignore_eos=True)
    stream = model.stream("never", **OPTIONS)
    stream.cancel()
    gate.set()
    assert stream.answer().finish_reason == "cancelled"
    blocking.answer()
    assert [request.completion_tokens for request in kept(model, 1)] == [200]


def test_nothing_is_kept_where_nobody_wants_it(bundle: Find, state: Path, writer: Writer) -> None:
    model = load(bundle("llama"), live=False)
    model.generate("what?", **OPTIONS)
    writer.flush()
    assert not live_file(model.bundle).exists()


RUN = """
import sys, tightrope as tr
model = tr.load(sys.argv[1], "onnxruntime", 1)
print(model.generate("what?", max_tokens=2, ignore_eos=True).usage.completion_tokens)
"""


def test_the_interpreters_end_waits_for_what_is_to_be_written(
    bundle: Find, kept: Callable[[Model, int], list[LiveRequest]]
) -> None:
    command = [sys.executable, "-c", RUN, str(bundle("llama"))]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "2\n", "")
    (request,) = kept(load(bundle("llama")), 1)
    assert request.completion_tokens == 2


def test_what_cannot_be_written_fails_no_request_is_said_once_and_written_later(
    bundle: Find, state: Path, kept: Callable[[Model, int], list[LiveRequest]], writer: Writer
) -> None:
    state.write_text("in the way", encoding="utf-8")
    model = load(bundle("llama"))
    assert model.generate("one", **OPTIONS).notes == ()
    notes: tuple[str, ...] = ()
    ends, asked = time.monotonic() + 20, 1
    while not notes and time.monotonic() < ends:
        writer.flush()
        notes, asked = model.generate("two", **OPTIONS).notes, asked + 1
    (note,) = notes
    assert "live.sqlite cannot be written" in note and "TIGHTROPE_STATE" in note
    writer.flush()
    assert model.generate("three", **OPTIONS).notes == ()
    state.unlink()
    assert len(kept(model, asked + 1)) == asked + 1


def test_a_batch_is_written_after_a_while_and_a_flush_at_once(
    bundle: Find, monkeypatch: pytest.MonkeyPatch, synthetic: ModuleType
) -> None:
    batches: list[int] = []
    monkeypatch.setattr(live, "append", lambda file, key, entries: batches.append(len(entries)))
    slow = Writer(batch_s=60)
    monkeypatch.setattr(live, "WRITER", slow)
    model = load(bundle("llama"))
    ring = Ring(model.bundle, model.backend, lambda note: None)
    request = made(1, synthetic.MODEL.stages(synthetic.text(10)))
    for _ in range(3):
        ring.put(request)
    assert batches == []
    slow.flush()
    assert batches == [3]
    slow.flush()
    ring.put(request)
    slow.flush()
    assert batches == [3, 1]
    started = time.monotonic()
    thread = threading.Thread(target=slow.flush)
    thread.start()
    thread.join(20)
    assert time.monotonic() - started < 20


def ring_of(model: Model, speed: float, count: int, age_s: float, latency: LatencyModel) -> None:
    """Requests of an earlier process, each `speed` times as slow as the file says."""
    request = made(20, Stages(**dict.fromkeys(Stages.__dataclass_fields__, 1.0)))
    (done,), _ = model.compared(latency, [Entry(time_s=0.0, value=request)])
    took = {name: speed * ms for name, ms in asdict(done.fitted).items()}
    request = replace(request, took=Stages(**took))
    now = time.time() - age_s
    entries = [Entry(time_s=now - number, value=request) for number in reversed(range(count))]
    append(live_file(model.bundle), latency_key(model.bundle, model.backend), entries)


@pytest.mark.parametrize(
    ("age_s", "count", "speed"), [(5.0, 40, 2.0), (90_000.0, 200, 2.0), (-5000.0, 40, 2.0)]
)
def test_a_new_process_plans_by_what_requests_took_lately(
    age_s: float,
    count: int,
    speed: float,
    bundle: Find,
    synthetic: ModuleType,
    machines: ModuleType,
) -> None:
    latency = machines.steady(synthetic.MODEL, 0.05)
    budget = tr.Budget(deadline_ms=1e6)
    fresh = load(bundle("llama"))
    key = latency_key(fresh.bundle, fresh.backend)
    write_latency(fresh.bundle, replace(synthetic.RECORD, key=key, model=latency))
    ring_of(fresh, speed, count, age_s, latency)
    plan = fresh.count("what?", budget=budget).plan
    assert plan is not None and plan.speed == pytest.approx(speed, rel=0.01)
    aside = load(bundle("llama"), live=False).count("what?", budget=budget).plan
    assert aside is not None and aside.speed == pytest.approx(1.0)


def test_a_slow_level_of_before_refuses_nobody_for_ever(
    bundle: Find, synthetic: ModuleType, machines: ModuleType
) -> None:
    latency = machines.steady(synthetic.MODEL, 0.05)
    fresh = load(bundle("llama"))
    key = latency_key(fresh.bundle, fresh.backend)
    write_latency(fresh.bundle, replace(synthetic.RECORD, key=key, model=latency))
    usual = load(bundle("llama"), live=False).count("what?", budget=tr.Budget(deadline_ms=1e6))
    assert usual.plan is not None
    ring_of(fresh, 3.0, 200, 600.0, latency)
    assert fresh.count("what?", budget=tr.Budget(deadline_ms=1e6)).plan.speed > 2.9  # type: ignore[union-attr]
    tight = tr.Budget(deadline_ms=usual.plan.total.p99_ms * 1.1)
    plan = fresh.count("what?", budget=tight).plan
    assert plan is not None and plan.speed == pytest.approx(1.0)


def test_a_damaged_ring_is_said_and_the_file_is_planned_by(
    bundle: Find, synthetic: ModuleType
) -> None:
    model = load(bundle("llama"))
    key = latency_key(model.bundle, model.backend)
    write_latency(model.bundle, replace(synthetic.RECORD, key=key))
    live_file(model.bundle).write_bytes(b"no database" * 1000)
    answer = model.generate("what?", budget=tr.Budget(deadline_ms=1e6), **OPTIONS)
    assert answer.plan is not None
    assert any("live.sqlite is damaged" in note for note in answer.notes)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"live": 1}, "live is 1; accepted: True or False"),
        ({"shadow": 1.5}, "shadow is 1.5; accepted: a share, 0 to 1"),
        ({"shadow": float("nan")}, "shadow is nan"),
        ({"shadow": "all"}, "shadow is 'all'"),
        ({"shadow": True}, "shadow is True"),
        ({"shadow": 0.1, "live": False}, "accepted: live=True with it"),
    ],
)
def test_a_wrong_choice_is_refused_before_the_bundle_is_opened(
    given: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        load(Path("no-such.bundle"), **given)
