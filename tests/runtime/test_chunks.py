"""How a prompt is cut into calls that take no longer than may be, and that it changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.bundle import Bundle
from tightrope.point import OperatingPoint
from tightrope.runtime.chunks import UNIT, Chunks
from tightrope.runtime.cuts import parts_of
from tightrope.runtime.model import Model
from tightrope.runtime.settings import Settings, resolve

Find = Callable[[str], Path]


@pytest.fixture
def plain(bundle: Find) -> Settings:
    return resolve(None, Bundle.open(bundle("llama")).manifest)


@pytest.mark.parametrize(
    ("call_ms", "occupied", "tokens"),
    [
        (1e6, 0, 512),
        (10.1, 0, 80),  # 2 ms, and a tenth for each token
        (10.1, 1000, 32),  # the slots cost as much again
        (32.1, 0, 192),  # 2 + 10 + 20: beyond 100 a token takes 0.2 ms
        (0.1, 0, UNIT),
    ],
)
def test_a_call_has_as_many_tokens_as_its_time_allows(
    call_ms: float, occupied: int, tokens: int, plain: Settings, synthetic: ModuleType
) -> None:
    chunks = Chunks(512, synthetic.MODEL.prefilling, call_ms)
    assert chunks.under(plain)(occupied) == tokens
    assert chunks.under(plain, occupied)(0) == tokens
    assert Chunks(8, synthetic.MODEL.prefilling, call_ms).under(plain)(occupied) == 8


def test_what_depends_on_how_a_prompt_is_cut_is_not_cut_by_time(
    bundle: Find, synthetic: ModuleType
) -> None:
    manifest = Bundle.open(bundle("llava")).manifest
    chunks = Chunks(512, synthetic.MODEL.prefilling, 0.1)
    for point in (
        OperatingPoint(kv_budget=64, policy="snapkv"),
        OperatingPoint(selector="fastv", keep="50%"),
    ):
        assert chunks.under(resolve(point, manifest))(0) == 512
    assert chunks.under(resolve(OperatingPoint(selector="uniform", keep=4), manifest))(0) == UNIT
    assert Chunks(512).under(resolve(None, manifest))(0) == 512  # nothing was measured


@given(st.integers(0, 300), st.lists(st.integers(1, 299)), st.lists(st.integers(1, 50), min_size=1))
def test_calls_read_every_token_once_and_end_at_the_cuts(
    length: int, cuts: list[int], sizes: list[int]
) -> None:
    places = sorted({cut for cut in cuts if cut < length})
    parts = parts_of(length, lambda place: sizes[place % len(sizes)], places)
    read = [place for part in parts for place in range(part.start, part.stop)]
    assert read == list(range(length))
    assert {*places} <= {part.stop for part in parts}
    assert all(part.stop - part.start <= sizes[part.start % len(sizes)] for part in parts)


def test_shorter_calls_change_no_answer_and_are_counted_as_they_are_made(
    loaded: Callable[[str], Model], synthetic: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = loaded("llama")
    model = Model(real.bundle, real.backend)
    prompt: list[int] = list(range(20, 120))
    ask: dict[str, Any] = {"max_tokens": 8, "ignore_eos": True, "logprobs": 1}
    whole = model.generate(prompt, **ask)
    assert len(model.count(prompt).work.prefill) == 4
    model._loaded.chunks = Chunks(32, synthetic.MODEL.prefilling, 3.7)
    lengths: list[int] = []
    prefill = real.backend.prefill

    def noted(slots: Any, call: Any, cancel: Any) -> Any:
        lengths.append(call.embeds.shape[1])
        return prefill(slots, call, cancel)

    monkeypatch.setattr(real.backend, "prefill", noted)
    model.forget_prefixes()
    cut = model.generate(prompt, **ask)
    assert [call.tokens for call in model.count(prompt).work.prefill] == lengths
    assert len(lengths) > 4 and sum(lengths) == 100
    assert cut.token_ids == whole.token_ids
    for one, other in zip(cut.logprobs or (), whole.logprobs or (), strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-3)
