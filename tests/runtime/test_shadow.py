"""Requests answered again without pruning: when, how much is held, and what is kept of it."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tightrope as tr
from tightrope.live_file import Agreement, live_file, read_agreements, read_requests
from tightrope.quality_file import point_of
from tightrope.runtime import engine, live, shadow
from tightrope.runtime.key import latency_key
from tightrope.runtime.live import Writer
from tightrope.runtime.model import Model
from tightrope.runtime.request import Request
from tightrope.runtime.shadow import Shadow

Find = Callable[[str], Path]
POINT = tr.OperatingPoint(resolution=28, selector="divprune", keep="50%")
OPTIONS: dict[str, Any] = {"max_tokens": 6, "ignore_eos": True}


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "state"
    monkeypatch.setenv("TIGHTROPE_STATE", str(folder))
    monkeypatch.setattr(live, "WRITER", Writer(batch_s=0.01))
    monkeypatch.setattr(engine, "SPARE_SECONDS", 0.05)
    return folder


@pytest.fixture
def model(bundle: Find) -> Model:
    return tr.load(bundle("llava"), "onnxruntime", 1, shadow=1.0)


def picture(seed: int) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (20, 24, 3), np.uint8)


def agreements(model: Model, number: int, seconds: float = 20.0) -> list[Agreement]:
    """What is kept, once `number` are there or the time is over."""
    file, key = live_file(model.bundle), latency_key(model.bundle, model.backend)
    ends = time.monotonic() + seconds
    while True:
        live.WRITER.flush()
        found = read_agreements(file, key)
        if len(found) >= number or time.monotonic() > ends:
            return [entry.value for entry in found]
        time.sleep(0.02)


def test_agreement_is_what_asking_again_would_have_said(model: Model) -> None:
    expected = []
    for seed in range(4):
        said = model.generate("what?", [picture(seed)], point=POINT, **OPTIONS)
        full = model.generate(
            "what?", [picture(seed)], point=tr.OperatingPoint(resolution=84), **OPTIONS
        )
        same = [a == b for a, b in zip(said.token_ids, full.token_ids, strict=False)]
        expected.append((said.text == full.text, sum(same) / len(full.token_ids)))
    found = agreements(model, 4)
    assert {point_of(each.point) for each in found} == {POINT}
    assert sorted((each.same, each.token_agreement) for each in found) == sorted(expected)
    # A repetition is nobody's request, and everything needs no repeating.
    time.sleep(0.2)
    assert len(agreements(model, 4)) == 4
    file, key = live_file(model.bundle), latency_key(model.bundle, model.backend)
    assert len(read_requests(file, key)) == 8


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 1.0, "point": POINT},
        {"n": 2, "point": POINT},
        {"point": tr.OperatingPoint(resolution=84)},
    ],
)
def test_what_pruning_alone_would_not_change_is_not_repeated(
    options: dict[str, Any], model: Model
) -> None:
    model.generate("what?", [picture(1)], **options, **OPTIONS)
    chat = model.chat()
    chat.ask("what?", [picture(2)], point=POINT, **OPTIONS)
    assert agreements(model, 1, seconds=0.5) == []


def test_nothing_is_repeated_unless_it_is_switched_on(bundle: Find) -> None:
    model = tr.load(bundle("llava"), "onnxruntime", 1)
    model.generate("what?", [picture(1)], point=POINT, **OPTIONS)
    assert agreements(model, 1, seconds=0.5) == []
    assert not model._loaded.engine._offered


def test_a_request_ends_a_repetition_at_once_which_is_made_up_for(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Any] = []
    real = Request

    def noted(*arguments: Any, **options: Any) -> Any:
        request = real(*arguments, **options)
        begun.append(request)
        return request

    monkeypatch.setattr(shadow, "Request", noted)
    endless: dict[str, Any] = {"max_tokens": 1500, "ignore_eos": True}
    stream = model.stream("what?", [picture(1)], point=replace(POINT, kv_budget=64), **endless)
    whole_ms = stream.answer().timings.total_ms
    while not begun:
        time.sleep(0.005)
    time.sleep(0.05)
    started = time.perf_counter()
    answer = model.generate("and now?", max_tokens=1)
    assert answer.usage.completion_tokens == 1
    took_ms = 1e3 * (time.perf_counter() - started)
    assert begun[0].cancel.reason == "cancelled"
    assert took_ms < whole_ms / 2, "it would have run as long again"
    found = agreements(model, 1, seconds=60)
    assert len(found) == 1 and len(begun) >= 2


def test_images_that_wait_are_bounded_and_reach_no_disk(
    model: Model, monkeypatch: pytest.MonkeyPatch, state: Path
) -> None:
    watcher = model._loaded.watchers[-1]
    assert isinstance(watcher, Shadow)
    monkeypatch.setattr(model._loaded.engine, "offer", lambda work: None)
    monkeypatch.setattr(shadow, "MOST_BYTES", 3 * 20 * 24 * 3)  # three pictures
    for seed in range(6):
        model.generate(f"secret {seed}", [picture(seed)], point=POINT, **OPTIONS)

    def waiting(expected: list[str]) -> list[Any]:
        """Those that wait, once they are the expected: a watcher is called behind the answer."""
        ends = time.monotonic() + 10
        while True:
            found = [said.prompt for said in list(watcher._waiting)]
            if found == expected or time.monotonic() > ends:
                return found
            time.sleep(0.01)

    newest = ["secret 3", "secret 4", "secret 5"]
    assert waiting(newest) == newest
    assert watcher.nbytes == shadow.MOST_BYTES
    monkeypatch.setattr(shadow, "MOST_WAITING", 2)
    model.generate("secret 6", [], point=replace(POINT, kv_budget=64), **OPTIONS)
    assert waiting(["secret 5", "secret 6"]) == ["secret 5", "secret 6"]
    live.WRITER.flush()
    (file,) = state.rglob("*.sqlite")
    content = file.read_bytes()
    assert b"secret" not in content and picture(5).tobytes()[:64] not in content


def test_an_owner_may_go_on_writing_to_the_prompt(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher: Any = model._loaded.watchers[-1]
    monkeypatch.setattr(model._loaded.engine, "offer", lambda work: None)
    messages = [{"role": "user", "content": "what?"}]
    asked = copy.deepcopy(messages)
    model.generate(messages, [picture(1)], point=POINT, **OPTIONS)
    while not watcher._waiting:
        time.sleep(0.01)
    messages[0]["content"] = "else"
    assert watcher._waiting[0].prompt == asked


def test_what_cannot_be_asked_without_pruning_is_said(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any, **options: Any) -> Iterator[None]:
        raise tr.InputError("the prompt needs more slots")

    model.generate("what?", [picture(1)], point=POINT, max_tokens=1)
    monkeypatch.setattr(shadow, "Request", refuse)
    notes: tuple[str, ...] = ()
    ends = time.monotonic() + 20
    while not notes and time.monotonic() < ends:
        time.sleep(0.3)
        notes = model.generate("what?", max_tokens=1).notes
    (note,) = notes
    assert note == (
        "a request could not be answered again without pruning: the prompt needs more slots"
    )


def test_a_share_of_requests_is_repeated(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    watcher: Any = model._loaded.watchers[-1]
    monkeypatch.setattr(watcher, "_share", 0.5)
    monkeypatch.setattr(watcher, "_hold", lambda said: held.append(said))
    monkeypatch.setattr(model._loaded.engine, "offer", lambda work: None)
    held: list[Any] = []
    for number in range(60):
        model.generate("what?", [picture(number % 3)], point=POINT, max_tokens=1)
    time.sleep(0.1)
    assert 15 <= len(held) <= 45
