"""What each part of a model takes, and what it alone costs: held against the parts put together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="exporting needs torch")

from tightrope.bundle import Bundle

Find = Callable[[str], Path]


def test_int4_costs_where_there_is_int4(bundle: Find) -> None:
    opened = Bundle.open(bundle("llama-int4"))
    weights, files = opened.manifest.weights, opened.manifest.files
    assert list(weights) == ["attention", "mlp", "head", "embeddings", "norms"]
    assert weights["attention"].stored == {"int4 by 32": 12}
    assert weights["mlp"].stored == {"int4 by 32": 9} and weights["head"].stored == {
        "int4 by 32": 1
    }
    # K = 64 and 96: half a byte a code and two bytes a scale of 32.
    assert weights["head"].bytes == 64 * 256 // 2 + 2 * 256 * 2
    assert weights["embeddings"].bytes == files["embeddings.data"].bytes
    errors = {name: group.logit_error or 0.0 for name, group in weights.items()}
    for name in ("attention", "mlp", "head"):
        assert 0.01 < errors[name] < 0.5
    for name in ("embeddings", "norms"):  # float16 alone
        assert errors[name] < 1e-3
    parity = opened.manifest.parity
    assert parity is not None and parity.stored_weights is not None
    most = max(errors.values())
    assert most < parity.stored_weights * 1.5 and parity.stored_weights < 3 * most


def test_floats_have_no_error_of_their_own_and_a_tower_is_listed(bundle: Find) -> None:
    weights = Bundle.open(bundle("llava-fp16")).manifest.weights
    assert list(weights) == [
        *("attention", "mlp", "head", "embeddings", "norms", "tower", "projector")
    ]
    assert all(set(group.stored) <= {"float16", "float32"} for group in weights.values())
    assert all(group.logit_error is None for group in weights.values())
    assert weights["projector"].stored == {"float16": 4}


def test_tied_embeddings_are_the_head_and_a_table_of_the_host(bundle: Find) -> None:
    weights = Bundle.open(bundle("qwen2")).manifest.weights
    assert weights["head"].stored == {"float32": 1}
    assert weights["head"].bytes == weights["embeddings"].bytes == 261 * 64 * 4
