"""VisionZip: graph against reference, and what the method promises."""

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tightrope.export.selectors.visionzip import reference

SIGNS = np.asarray([-1, 1], np.float32)
cases = st.tuples(st.integers(1, 3), st.integers(1, 60), st.data(), st.integers(0, 10**6))


def scene(seed: int, images: int, available: int, projector: Any) -> dict[str, Any]:
    """Distinct attention and keys of +-1, so that every decision is exact."""
    rng = np.random.default_rng(seed)
    states = rng.normal(size=(images, 1 + available, 16)).astype(np.float32)
    attention = [rng.permutation(available) / available for _ in range(images)]
    return {
        "cls_attention": np.asarray(attention, np.float32),
        "tower_keys": rng.choice(SIGNS, size=(images, available, 4)),
        "tower_states": states,
        "visual_embeds": states[:, 1:] @ projector,
    }


def expect(inputs: dict[str, Any], keep: int, projector: Any) -> tuple[Any, Any]:
    names = ("cls_attention", "tower_states", "tower_keys")
    images = zip(*(inputs[name] for name in names), strict=True)
    rows = [reference(attention, states, keys, keep) for attention, states, keys in images]
    return np.stack([row[0] for row in rows]), np.stack([row[1] for row in rows]) @ projector


@settings(max_examples=100, deadline=None)
@given(cases)
def test_the_graph_equals_the_reference(run: Any, projector: Any, case: Any) -> None:
    images, available, data, seed = case
    keep = data.draw(st.integers(1, available))
    inputs = scene(seed, images, available, projector)
    index, embeds = run("visionzip", inputs, keep)
    want_index, want_embeds = expect(inputs, keep, projector)
    np.testing.assert_array_equal(index, want_index)
    np.testing.assert_allclose(embeds, want_embeds, atol=2e-5)


@settings(max_examples=30, deadline=None)
@given(cases)
def test_keys_of_any_length_and_direction(run: Any, projector: Any, case: Any) -> None:
    images, available, data, seed = case
    keep = data.draw(st.integers(1, available))
    inputs = scene(seed, images, available, projector)
    keys = np.random.default_rng(seed).normal(size=(images, available, 4))
    inputs["tower_keys"] = keys.astype(np.float32)
    unit = keys / np.linalg.norm(keys, axis=-1, keepdims=True)
    alike = np.sort(unit @ unit.transpose(0, 2, 1), axis=-1)
    assume(available == 1 or np.diff(alike, axis=-1).min() > 1e-5)
    index, embeds = run("visionzip", inputs, keep)
    want_index, want_embeds = expect(inputs, keep, projector)
    np.testing.assert_array_equal(index, want_index)
    np.testing.assert_allclose(embeds, want_embeds, atol=2e-5)


def test_half_precision_is_scored_in_float32(run: Any, projector: Any) -> None:
    inputs = scene(5, 2, 40, projector)
    half = {
        name: value if name == "cls_attention" else value.astype(np.float16)
        for name, value in inputs.items()
    }
    index, embeds = run("visionzip", half, 16, dtype=10)
    want_index, want_embeds = expect(inputs, 16, projector)
    assert embeds.dtype == np.float16
    np.testing.assert_array_equal(index, want_index)
    np.testing.assert_allclose(embeds, want_embeds, atol=0.1)


def test_a_context_token_is_its_target_plus_the_mean_of_its_tokens() -> None:
    states = np.random.default_rng(0).normal(size=(9, 16)).astype(np.float32)
    attention = np.asarray([0.1, 0.9, 0.8, 0.2, 0.7, 0.6, 0.5, 0.3], np.float32)
    # 7 of 8: CLS, 5 dominant (1, 2, 4, 5, 6); of 0, 3, 7 the first is the target.
    index, kept = reference(attention, states, np.ones((8, 4), np.float32), 7)
    assert index.tolist() == [0, 0, 1, 2, 4, 5, 6]
    np.testing.assert_array_equal(kept[0], states[0])
    np.testing.assert_allclose(kept[1], states[1] + (states[4] + states[8]) / 2, rtol=1e-6)
    np.testing.assert_array_equal(kept[2:], states[[2, 3, 5, 6, 7]])


def test_one_token_is_cls(run: Any, projector: Any) -> None:
    inputs = scene(2, 2, 10, projector)
    index, embeds = run("visionzip", inputs, 1)
    assert index.tolist() == [[0], [0]]
    np.testing.assert_allclose(embeds[:, 0], inputs["tower_states"][:, 0] @ projector, atol=2e-5)


@pytest.mark.parametrize("keep", [3, 12])
def test_equal_attention_keeps_the_lowest_indices(run: Any, projector: Any, keep: int) -> None:
    inputs = scene(4, 1, 20, projector)
    inputs["cls_attention"] = np.full((1, 20), 0.05, np.float32)
    index, _ = run("visionzip", inputs, keep)
    np.testing.assert_array_equal(index, expect(inputs, keep, projector)[0])
    dominant = keep - 1 - keep * 10 // 64
    assert set(range(dominant)) <= set(index[0].tolist())
