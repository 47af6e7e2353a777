"""The kernel `likeliest` in Triton's interpreter, and what its reference promises."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.plugins.likeliest import BLOCK, COUNT
from tightrope.plugins.likeliest.reference import likeliest

HERE = Path(__file__).parent


def test_the_kernel_gives_what_the_reference_does() -> None:
    pytest.importorskip("triton", reason="needs the extra [kernels]")
    pytest.importorskip("torch", reason="Triton's interpreter takes torch's tensors")
    command = [sys.executable, str(HERE / "interpreted.py")]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == [True] * 5


@given(st.integers(1, 3 * BLOCK), st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 8]))
def test_what_is_not_given_is_no_likelier_than_the_last_of_its_block(
    vocabulary: int, seed: int, decimals: int
) -> None:
    logits = np.random.default_rng(seed).normal(size=(2, vocabulary)).round(decimals)
    logits = logits.astype(np.float32)
    values, tokens = likeliest(logits)
    assert values.shape == tokens.shape == (2, -(-vocabulary // BLOCK), COUNT)
    for row, largest, ids in zip(logits, values, tokens, strict=True):
        told = largest > -np.inf
        np.testing.assert_array_equal(row[ids[told]], largest[told])
        assert len(set(ids[told].tolist())) == told.sum()
        left = np.delete(row, ids[told])
        assert not len(left) or left.max() <= largest[:, -1].max()
        assert row.argmax() in ids[told]
