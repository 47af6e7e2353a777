"""VisionZip: what makes the method what it is."""

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tightrope.arrays import Floats
from tightrope.export.selectors import Image
from tightrope.export.selectors.visionzip import VISIONZIP
from tightrope.interface.tensors import (
    CLS_ATTENTION,
    TOWER_KEYS,
    TOWER_STATES,
    VISUAL_EMBEDS,
)

SIGNS = np.asarray([-1, 1], np.float32)
cases = st.tuples(st.integers(1, 3), st.integers(1, 60), st.data(), st.integers(0, 10**6))


def scene(
    rng: np.random.Generator, images: int, available: int, projector: Floats
) -> dict[str, Floats]:
    """Distinct attention; cosines of keys are exact, and many are equal."""
    states = rng.normal(size=(images, 1 + available, 16)).astype(np.float32)
    attention = [rng.permutation(available) / available for _ in range(images)]
    return {
        CLS_ATTENTION: np.asarray(attention, np.float32),
        TOWER_KEYS: rng.choice(SIGNS, size=(images, available, 4)),
        TOWER_STATES: states,
        VISUAL_EMBEDS: states[:, 1:] @ projector,
    }


@settings(max_examples=30, deadline=None)
@given(cases)
def test_keys_of_any_length_and_direction(agree: Any, projector: Floats, case: Any) -> None:
    images, available, data, seed = case
    keep = data.draw(st.integers(1, available))
    inputs = scene(np.random.default_rng(seed), images, available, projector)
    keys = np.random.default_rng(seed).normal(size=(images, available, 4))
    inputs[TOWER_KEYS] = keys.astype(np.float32)
    unit = keys / np.linalg.norm(keys, axis=-1, keepdims=True)
    alike = np.sort(unit @ unit.transpose(0, 2, 1), axis=-1)
    assume(available == 1 or np.diff(alike, axis=-1).min() > 1e-5)
    agree("visionzip", inputs, keep)


def test_a_context_token_is_its_target_plus_the_mean_of_its_tokens() -> None:
    states = np.random.default_rng(0).normal(size=(9, 16)).astype(np.float32)
    image = Image(
        visual_embeds=states[1:],
        cls_attention=np.asarray([0.1, 0.9, 0.8, 0.2, 0.7, 0.6, 0.5, 0.3], np.float32),
        tower_states=states,
        tower_keys=np.ones((8, 4), np.float32),
        project=lambda states: states,
    )
    # 7 of 8: CLS, 5 dominant (1, 2, 4, 5, 6); of 0, 3, 7 the first is the target.
    choice = VISIONZIP.reference(image, 7)
    kept = choice.embeds
    assert choice.index.tolist() == [0, 0, 1, 2, 4, 5, 6]
    np.testing.assert_array_equal(kept[0], states[0])
    np.testing.assert_allclose(kept[1], states[1] + (states[4] + states[8]) / 2, rtol=1e-6)
    np.testing.assert_array_equal(kept[2:], states[[2, 3, 5, 6, 7]])


def test_one_token_is_cls(run: Any, projector: Floats) -> None:
    inputs = scene(np.random.default_rng(2), 2, 10, projector)
    index, embeds = run("visionzip", inputs, 1)
    assert index.tolist() == [[0], [0]]
    np.testing.assert_allclose(embeds[:, 0], inputs[TOWER_STATES][:, 0] @ projector, atol=2e-5)


@pytest.mark.parametrize("keep", [3, 12])
def test_equal_attention_keeps_the_lowest_indices(agree: Any, projector: Floats, keep: int) -> None:
    inputs = scene(np.random.default_rng(4), 1, 20, projector)
    inputs[CLS_ATTENTION][:] = 0.05
    index, _ = agree("visionzip", inputs, keep)
    dominant = keep - 1 - keep * 10 // 64
    assert set(range(dominant)) <= set(index[0].tolist())
