"""What every selector promises, on the scenes that its own test file draws.

In `scene` of that file every decision is exact in float32 and half precision, so that the graph
and the reference must choose alike; where the method ranks exact values, many are equal.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightrope.export.check.operators import check_operators
from tightrope.export.check.rtx import check_graph
from tightrope.export.selectors import SELECTORS
from tightrope.interface.onnx import FLOAT16
from tightrope.interface.tensors import TEXT_EMBEDS, VISUAL_EMBEDS

every = pytest.mark.parametrize("name", SELECTORS)
cases = st.tuples(st.integers(1, 3), st.integers(1, 60), st.data(), st.integers(0, 10**6))
RANGES = {
    "I": (1, 1, 4),
    "V": (16, 576, 576),
    "P": (17, 577, 577),
    "K": (1, 72, 575),
    "T": (1, 20, 128),
}


@every
@settings(max_examples=100, deadline=None)
@given(cases)
def test_the_graph_equals_the_reference(name: str, scene_of: Any, agree: Any, case: Any) -> None:
    images, available, data, seed = case
    scene = scene_of(name, np.random.default_rng(seed), images, available)
    agree(name, scene, data.draw(st.integers(1, available)))


@every
@settings(max_examples=30, deadline=None)
@given(cases)
def test_half_precision_is_scored_in_float32(
    name: str, scene_of: Any, agree: Any, case: Any
) -> None:
    images, available, data, seed = case
    scene = scene_of(name, np.random.default_rng(seed), images, available)
    agree(name, scene, data.draw(st.integers(1, available)), FLOAT16)


@every
@settings(max_examples=30, deadline=None)
@given(cases)
def test_indices_ascend_and_are_in_range(name: str, scene_of: Any, run: Any, case: Any) -> None:
    images, available, data, seed = case
    keep = data.draw(st.integers(1, available))
    scene = scene_of(name, np.random.default_rng(seed), images, available)
    index, embeds = run(name, scene, keep)
    assert index.shape == (images, keep) and embeds.shape == (images, keep, 16)
    assert index.min() >= 0 and index.max() < available
    # Where tokens merge, CLS takes the first token's place beside it.
    assert (np.diff(index, axis=1) >= (not SELECTORS[name].merges)).all()


@every
@settings(max_examples=20, deadline=None)
@given(cases)
def test_keeping_one_and_keeping_all(name: str, scene_of: Any, agree: Any, case: Any) -> None:
    images, available, _, seed = case
    scene = scene_of(name, np.random.default_rng(seed), images, available)
    agree(name, scene, 1)
    index, embeds = agree(name, scene, available)
    if not SELECTORS[name].merges:
        np.testing.assert_array_equal(index, np.tile(np.arange(available), (images, 1)))
        np.testing.assert_array_equal(embeds, scene[VISUAL_EMBEDS])


@every
@settings(max_examples=20, deadline=None)
@given(cases)
def test_an_image_is_chosen_from_as_if_it_were_alone(
    name: str, scene_of: Any, run: Any, case: Any
) -> None:
    images, available, data, seed = case
    keep = data.draw(st.integers(1, available))
    scene = scene_of(name, np.random.default_rng(seed), images, available)
    index, embeds = run(name, scene, keep)
    for i in range(images):
        alone = {
            key: value if key == TEXT_EMBEDS else value[i : i + 1] for key, value in scene.items()
        }
        own_index, own_embeds = run(name, alone, keep)
        np.testing.assert_array_equal(own_index[0], index[i])
        np.testing.assert_allclose(own_embeds[0], embeds[i], atol=2e-5)


@every
def test_every_input_is_read(name: str, standard_graph: Callable[[str], ir.Model]) -> None:
    for value in standard_graph(name).graph.inputs:
        assert value.uses(), f"{value.name} is not read: TensorRT refuses that"


@every
def test_the_oldest_parser_knows_every_operator(
    name: str, standard_graph: Callable[[str], ir.Model]
) -> None:
    check_operators(name, standard_graph(name))


@pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="TensorRT for RTX is not installed"
)
@every
def test_tensorrt_builds_the_graph(
    name: str, standard_graph: Callable[[str], ir.Model], tmp_path: Path
) -> None:
    ir.save(standard_graph(name), tmp_path / "select.onnx")
    done = check_graph(name, tmp_path / "select.onnx", RANGES)
    assert done.ok, done.message
