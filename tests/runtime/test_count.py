"""What a request would spend is what it then spends, told without doing any of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightrope.errors import InputError
from tightrope.latency_file import LatencyKey, latency_file, write_latency
from tightrope.point import OperatingPoint
from tightrope.runtime.count import Count
from tightrope.runtime.key import latency_key
from tightrope.runtime.model import Model

Load = Callable[[str], Model]

POINTS = [
    None,
    OperatingPoint(selector="divprune", keep="50%"),
    OperatingPoint(selector="visionzip", keep="25%", resolution=84),
    OperatingPoint(selector="uniform", keep=3, resolution=28),
    OperatingPoint(selector="fastv", keep="25%"),
    OperatingPoint(selector="divprune+fastv", keep=("50%", "20%"), resolution=84),
    OperatingPoint(kv_budget=48),
    OperatingPoint(kv_budget=(64, 40, 48, 70), policy="streaming", selector="random", keep="50%"),
    OperatingPoint(selector="divprune", keep="100%"),
]


def picture(seed: int = 0) -> PIL.Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    return PIL.Image.fromarray(pixels)


def spent(count: Count) -> dict[str, int]:
    names = ("prompt_tokens", "visual_tokens", "visual_tokens_kept", "completion_tokens")
    return {name: getattr(count, name) for name in (*names, "occupied_slots", "slot_bytes")}


def used(answer: Any) -> dict[str, int]:
    names = ("prompt_tokens", "visual_tokens", "visual_tokens_kept", "completion_tokens")
    return {name: getattr(answer.usage, name) for name in (*names, "occupied_slots", "slot_bytes")}


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("num_images", [1, 2])
def test_a_count_is_what_the_answer_then_says(
    loaded: Load, point: OperatingPoint | None, num_images: int
) -> None:
    model, images = loaded("llava"), [picture(seed) for seed in range(num_images)]
    count = model.count("what is it", images, point=point, max_tokens=70)
    answer = model.generate(
        "what is it", images=images, point=point, max_tokens=70, ignore_eos=True
    )
    assert spent(count) == used(answer)
    assert count.point == answer.point
    assert count.backend == answer.backend
    assert count.work.steps == answer.usage.completion_tokens - 1


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 300), st.integers(1, 150), st.sampled_from((None, 40, 100, 2000)))
def test_prompts_of_any_length_are_counted_as_they_are_read(
    loaded: Load, length: int, max_tokens: int, budget: int | None
) -> None:
    model, point = loaded("llama"), OperatingPoint(kv_budget=budget)
    count = model.count([9] * length, point=point, max_tokens=max_tokens)
    answer = model.generate([9] * length, point=point, max_tokens=max_tokens, ignore_eos=True)
    assert spent(count) == used(answer)
    calls = count.work.prefill
    assert sum(call.tokens for call in calls) == length
    assert len(calls) == -(-length // model.bundle.manifest.prefill_chunk)


def test_an_answer_ends_where_the_slots_are_full(loaded: Load) -> None:
    model = loaded("llama")
    slots = model.bundle.manifest.slots
    count = model.count([9] * (slots - 10), max_tokens=500)
    answer = model.generate([9] * (slots - 10), max_tokens=500, ignore_eos=True)
    assert count.completion_tokens == answer.usage.completion_tokens < 20


def test_nothing_is_computed_and_nothing_decoded(
    loaded: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "picture.jpg"
    picture().save(file)
    model = loaded("llava")

    def forbidden(*arguments: object, **more: object) -> None:
        raise AssertionError("a count does no work")

    for name in ("vision", "select", "prefill", "decode"):
        monkeypatch.setattr(model.backend, name, forbidden)
    monkeypatch.setattr(PIL.Image.Image, "resize", forbidden)
    monkeypatch.setattr("PIL.JpegImagePlugin.JpegImageFile.load", forbidden)
    count = model.count("what is it", [file], point=POINTS[1])
    (image,) = count.work.images
    assert (image.format, image.width, image.height) == ("JPEG", 60, 40)
    assert image.encoded_bytes == file.stat().st_size


def test_what_costs_time_is_counted_in_its_own_units(loaded: Load) -> None:
    model = loaded("llava")
    chain = model.count("what is it", [picture()], point=POINTS[5], max_tokens=5).work
    assert (chain.selector, chain.schedule, chain.resolution) == ("divprune", "fastv", 84)
    assert chain.visual_tokens_kept < chain.visual_tokens
    assert chain.prefill[0].tokens < chain.text_tokens + chain.visual_tokens_kept
    assert not chain.evicts
    all_kept = model.count("what is it", [picture()], point=POINTS[8]).work
    assert all_kept.selector is None
    budget = model.count([9] * 100, point=OperatingPoint(kv_budget=40), max_tokens=5).work
    assert budget.evicts and budget.context == budget.most_context == 40
    assert sum(call.given_up for call in budget.prefill) == 60


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("",), "is empty"),
        (("what", [Path("nowhere.png")]), "is not a file"),
        (("what", [b"no image"]), "no format"),
        (("what", [picture()], {"point": OperatingPoint(resolution=29)}), "resolution is 29"),
        (("what", [], {"max_tokens": 0}), "max_tokens is 0"),
        (([9] * 5000,), "needs 5000 slots"),
    ],
)
def test_what_cannot_be_answered_is_not_counted(
    loaded: Load, arguments: tuple[Any, ...], words: str
) -> None:
    prompt, *rest = arguments
    images, options = ([*rest, {}] if len(rest) < 2 else rest) if rest else ([], {})
    with pytest.raises(InputError, match=words):
        loaded("llava").count(prompt, images, **options)
    with pytest.raises(InputError, match=words):
        loaded("llava").generate(prompt, images, **options)


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TIGHTROPE_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


def key(model: Model) -> LatencyKey:
    return latency_key(model.bundle, model.backend)


def test_without_a_latency_file_the_command_is_named(loaded: Load, state: Path) -> None:
    count = loaded("llama").count([9] * 10)
    assert count.prediction is None
    assert len(count.notes) == 1 and "--latency-only" in count.notes[0]
    assert count.to_dict()["prediction"] is None


def test_with_a_latency_file_the_time_is_predicted(
    loaded: Load, state: Path, synthetic: Any
) -> None:
    model = loaded("llama")
    write_latency(model.bundle, replace(synthetic.RECORD, key=key(model)))
    count = model.count([9] * 10, max_tokens=20)
    assert count.notes == ()
    assert count.prediction == synthetic.MODEL.predict(count.work)
    told = count.to_dict()
    assert told["schema"] == 1
    assert told["prediction"]["ttft"]["p95_ms"] > told["prediction"]["ttft"]["p50_ms"]


def test_what_was_not_measured_is_said(loaded: Load, state: Path, synthetic: Any) -> None:
    model = loaded("llava")
    write_latency(model.bundle, replace(synthetic.RECORD, key=key(model)))
    count = model.count("what is it", [picture()], point=POINTS[2])
    assert "selector visionzip was not measured" in count.notes


def test_a_damaged_latency_file_is_said_and_the_count_goes_on(
    loaded: Load, state: Path, synthetic: Any
) -> None:
    model = loaded("llama")
    latency_file(model.bundle, key(model)).parent.mkdir(parents=True)
    latency_file(model.bundle, key(model)).write_text("{", encoding="utf-8")
    count = model.count([9] * 10)
    assert count.prompt_tokens == 10
    assert "is damaged" in count.notes[0]


def test_a_key_says_what_runs_here(loaded: Load) -> None:
    found = key(loaded("llama"))
    assert found.bundle == loaded("llama").bundle.digest
    assert (found.backend, found.threads) == ("onnxruntime", 1)
    assert key(loaded("llava")).bundle != found.bundle
