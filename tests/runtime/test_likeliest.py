"""Tokens drawn from the likeliest logits alone, beside those drawn from all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightrope.errors import BackendError
from tightrope.plugins.likeliest.reference import likeliest
from tightrope.runtime.choosing import Chooser
from tightrope.runtime.likeliest import Likeliest, gathered
from tightrope.runtime.options import Options
from tightrope.runtime.sampling import Sampler

Logits = npt.NDArray[np.float32]


class Device:
    """Gives the likeliest of logits, and counts how often all of them were asked for."""

    def __init__(self) -> None:
        self.copies = 0

    def __call__(self, logits: Logits) -> Likeliest:
        def copied() -> Logits:
            self.copies += 1
            return logits

        return gathered(*likeliest(logits), copied)


def drawn(logits: Logits, **options: Any) -> tuple[list[list[int]], int]:
    """Tokens of three steps, the same from a device and from the host, and how often it copied."""
    device, rows = Device(), len(logits)
    given = {"temperature": 0.0, "top_p": 1.0, "seed": 5, "n": rows, **options}
    ours, theirs = Sampler(**given), Sampler(**given)
    steps = [logits, logits[:, ::-1].copy(), logits * np.float32(0.5)]
    found = [ours(device(step)).tolist() for step in steps]
    assert found == [theirs(step).tolist() for step in steps]
    return found, device.copies


@given(
    st.integers(1, 5000),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0, 1, 3, 8]),
    st.integers(1, 30),
    st.sampled_from([0.3, 0.9, 1.0]),
    st.sampled_from([0.0, 0.05]),
    st.sampled_from([0.0, 0.1, 1.0, 50.0]),
)
@settings(max_examples=200, deadline=None)
def test_a_device_and_the_host_draw_the_same(
    vocabulary: int,
    seed: int,
    decimals: int,
    top_k: int,
    top_p: float,
    min_p: float,
    temperature: float,
) -> None:
    """Ties and weights that underflow among them."""
    logits = 4 * np.random.default_rng(seed).normal(size=(2, vocabulary))
    options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    drawn(logits.round(decimals).astype(np.float32), **options)


@pytest.mark.parametrize(
    ("options", "copies"),
    [
        ({}, 0),
        ({"temperature": 0.7, "top_k": 20}, 0),
        ({"temperature": 0.7, "top_k": 20, "top_p": 0.8, "min_p": 0.01}, 0),
        ({"temperature": 0.7}, 3),
        ({"temperature": 0.7, "top_p": 0.8}, 3),
        ({"temperature": 0.7, "top_k": 100_000}, 3),
    ],
)
def test_of_a_large_vocabulary_few_samplings_need_more_than_the_likeliest(
    options: dict[str, Any], copies: int
) -> None:
    logits = np.random.default_rng(3).normal(size=(2, 151_936)).astype(np.float32)
    assert drawn(logits, **options)[1] == copies


def test_of_tokens_that_are_alike_all_are_looked_at() -> None:
    found, copies = drawn(np.zeros((1, 3000), np.float32))
    assert found == [[0]] * 3 and copies == 3


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_what_is_no_number_is_still_an_error(broken: float) -> None:
    logits = np.zeros((1, 3000), np.float32)
    logits[0, 1234] = broken
    for temperature, top_k in ((0.0, 0), (1.0, 5)):
        with pytest.raises(BackendError, match="not numbers or infinite"):
            Sampler(temperature, 1.0, seed=0, top_k=top_k)(Device()(logits))


def test_penalties_and_biases_see_every_logit() -> None:
    logits = np.zeros((1, 3000), np.float32)
    logits[0, :9] = np.arange(9, 0, -1)
    for bias, token in ((None, 0), ({2000: 50.0}, 2000)):
        device, chooser = Device(), Chooser(Options(logit_bias=bias), 3000)
        chooser.watch([], [[]])
        assert chooser(device(logits)).tolist() == [token]
        assert device.copies == (bias is not None)
