"""Rows of the embedding table, gathered from its file."""

from pathlib import Path

import numpy as np
import pytest

from tightrope.inputs.embeddings import Embeddings
from tightrope.interface.tensors import Dims

DIMS = Dims(
    num_hidden_layers=1,
    num_attention_heads=1,
    num_key_value_heads=1,
    head_dim=4,
    hidden_size=4,
    vocab_size=9,
)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("scale", [1.0, 3.5])
def test_rows_are_those_of_the_file_scaled_in_float32(
    dtype: str, scale: float, tmp_path: Path
) -> None:
    table = np.random.default_rng(0).normal(size=(9, 4)).astype(dtype)
    table.tofile(tmp_path / "embeddings.data")
    embed = Embeddings(tmp_path / "embeddings.data", dtype, DIMS, scale)
    ids = np.array([[8, 0, 3], [3, 3, 7]])
    found = embed(ids)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, table[ids].astype(np.float32) * np.float32(scale))
    assert embed([5]).shape == (1, 4)


def test_a_towers_separators_follow_the_vocabulary(tmp_path: Path) -> None:
    table = np.random.default_rng(1).normal(size=(11, 4)).astype("float16")
    table.tofile(tmp_path / "embeddings.data")
    embed = Embeddings(tmp_path / "embeddings.data", "float16", DIMS, 1.0, separators=2)
    np.testing.assert_array_equal(embed([10, 8, 9]), table[[10, 8, 9]].astype(np.float32))
