"""Which matrices get codes, what four bits of one cost, and who gets eight for a budget of bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="exporting needs torch")

from tightrope.errors import InputError  # noqa: E402
from tightrope.export.checkpoint import open_checkpoint  # noqa: E402
from tightrope.export.quantising import (  # noqa: E402
    Costly,
    costs,
    error,
    logits,
    matrices,
    rounded,
    with_eight_bits,
)
from tightrope.export.rounding import Rounding  # noqa: E402
from tightrope.progress import silent  # noqa: E402

Find = Callable[[str], Path]
ASKED = [{"input_ids": torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])}]
FOUND = [Costly("a", 100, 0.1), Costly("b", 100, 0.3), Costly("c", 400, 0.3), Costly("d", 10, 0)]


@pytest.fixture
def late(checkpoint: Find) -> Any:
    return open_checkpoint(checkpoint("llama")).late_model()


def test_matrices_of_the_language_model_get_codes_and_the_table_does_not(
    late: Any, checkpoint: Find
) -> None:
    names = {place.name for place in matrices(late, Rounding(32))}
    assert len(names) == 3 * 7 + 1 and "lm_head.weight" in names
    assert matrices(late, Rounding(64)) != [] and "model.embed_tokens.weight" not in names
    seeing = matrices(open_checkpoint(checkpoint("llava")).late_model(), Rounding(32))
    assert all("vision_tower" not in place.name for place in seeing)


def test_what_a_matrix_costs_is_what_it_costs_alone(late: Any) -> None:
    rounding = Rounding(32)
    found = costs(late, rounding, ASKED, silent)
    assert [one.name for one in found] == [place.name for place in matrices(late, rounding)]
    assert all(0 < one.error < 0.5 for one in found)
    expected = logits(late, ASKED)
    together = error(expected, logits(late, ASKED, rounded(late, rounding)))
    squares = sum(one.error**2 for one in found) ** 0.5
    assert 0.4 * squares < together < 2.5 * squares
    last = found[-1]
    alone = logits(late, ASKED, rounded(late, rounding, {last.name}))
    assert error(expected, alone) == last.error
    wider = replace(rounding, eight_bits=frozenset({last.name}))
    assert error(expected, logits(late, ASKED, rounded(late, wider, {last.name}))) < last.error / 8


@pytest.mark.parametrize(
    ("bits", "eight"), [(4.5, ""), (5.2, "b"), (5.9, "abd"), (7.8, "bc"), (8.6, "abcd")]
)
def test_the_costliest_for_their_size_have_eight_bits_while_there_are_some(
    bits: float, eight: str
) -> None:
    chosen = with_eight_bits(Rounding(32), FOUND, bits)
    assert chosen.eight_bits == frozenset(eight)
    used = sum(one.weights * chosen.bits_of(one.name) for one in FOUND)
    assert used <= bits * sum(one.weights for one in FOUND)


def test_a_head_of_eight_bits_keeps_them() -> None:
    rounding = Rounding(64, eight_bits=frozenset({"c"}))
    assert with_eight_bits(rounding, FOUND, 6.9).eight_bits == frozenset({"c"})
    with pytest.raises(InputError, match=r"bits is 4\.5; four bits .* are 6\.87 already"):
        with_eight_bits(rounding, FOUND, 4.5)
