"""What a bundle answered where it was exported, held against backends that are right and wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tightrope.bundle import SELFTEST, Bundle
from tightrope.errors import BundleError
from tightrope.runtime.loaded import Loaded
from tightrope.runtime.model import Model
from tightrope.runtime.selftest.steps import PROMPT_TOKENS, STEPS, TOP, compare, recorded, stored

Parts = Callable[[Model], Loaded]
TOLERANCE = 1e-4


@pytest.fixture(params=["llama", "llama-int4", "qwen2", "llava"])
def parts(request: pytest.FixtureRequest, loaded: Any, parts_of: Parts) -> Loaded:
    return parts_of(loaded(request.param))


def test_the_same_backend_passes_its_own_test(parts: Loaded) -> None:
    arrays = recorded(parts, TOLERANCE)
    assert arrays["tokens"].shape == (STEPS,)
    assert arrays["top_ids"].shape == arrays["top_logits"].shape == (STEPS, TOP)
    assert (np.diff(arrays["top_logits"], axis=1) <= 0).all()
    assert (arrays["top_ids"][:, 0] == arrays["tokens"]).all()
    assert len(arrays["prompt"]) <= PROMPT_TOKENS + 1
    found = compare(parts, arrays)
    assert found.passed and found.worst <= TOLERANCE


def test_a_picture_is_shown_to_whoever_can_see(parts: Loaded) -> None:
    arrays = recorded(parts, TOLERANCE)
    vision = parts.manifest.vision
    assert ("picture" in arrays) == (vision is not None)
    if vision is not None:
        assert np.count_nonzero(arrays["prompt"] == vision.image_token_id) == 1
        blind = compare(parts, arrays | {"picture": np.zeros_like(arrays["picture"])})
        assert not blind.passed


def test_what_differs_by_more_than_the_tolerance_is_astray(parts: Loaded) -> None:
    arrays = recorded(parts, TOLERANCE)
    shifted = arrays["top_logits"].copy()
    shifted[5, 3] += 10 * TOLERANCE
    found = compare(parts, arrays | {"top_logits": shifted})
    assert found.astray == (5,) and found.worst == pytest.approx(10 * TOLERANCE, rel=0.3)


def test_another_likeliest_token_counts_only_where_it_leads_clearly(parts: Loaded) -> None:
    arrays = recorded(parts, TOLERANCE)
    ids, logits = arrays["top_ids"].copy(), arrays["top_logits"].copy()
    ids[4, [0, 1]], logits[4, [0, 1]] = ids[4, [1, 0]], logits[4, [1, 0]]
    lead = float(arrays["top_logits"][4, 0] - arrays["top_logits"][4, 1])
    swapped = arrays | {"top_ids": ids, "top_logits": logits}
    assert compare(parts, swapped | {"tolerance": np.float32(2 * lead)}).passed
    # The wrong one is recorded as leading: right values in the wrong order are no tie.
    led = logits.copy()
    led[4, 0] += lead + 0.5
    found = compare(parts, arrays | {"top_ids": ids, "top_logits": led})
    assert found.astray == (4,)


@pytest.mark.parametrize("name", ["llama", "llama-fp16", "llama-int4", "llava"])
def test_an_export_leaves_its_test_in_the_bundle(
    bundle: Callable[[str], Path], loaded: Any, parts_of: Parts, name: str
) -> None:
    opened = Bundle.open(bundle(name), verify=True)
    arrays = stored(opened)
    found = compare(parts_of(loaded(name)), arrays)
    assert found.passed, found
    # Nothing but the bundle: the process that recorded it left no state beside it.
    assert not [path for path in bundle(name).parent.iterdir() if path.name.startswith(".")]


def damaged(arrays: dict[str, Any], name: str, how: str) -> dict[str, Any]:
    array = arrays[name]
    changed = {
        "missing": None,
        "float64": array.astype(np.float64),
        "text": np.full(array.shape, "a"),
        "records": np.zeros(array.shape, [("a", "f4")]),
        "of one axis more": array[None],
        "beyond the vocabulary": np.full(array.shape, 2**31 - 1),
        "below zero": np.full(array.shape, -1),
        "none": array[:0] if array.ndim else None,
    }[how]
    left = {key: value for key, value in arrays.items() if key != name}
    return left if changed is None else left | {name: changed}


ANY = ("missing", "float64", "text", "records", "of one axis more")
TOKENS = (*ANY, "beyond the vocabulary", "below zero", "none")
WRONG = [
    *((name, how) for name in ("prompt", "tokens", "top_ids") for how in TOKENS),
    *((name, how) for name in ("top_logits", "tolerance") for how in ANY),
    *(("picture", how) for how in ANY[1:]),
]


@pytest.mark.parametrize(("name", "how"), WRONG)
def test_a_damaged_record_is_told_by_its_array(
    bundle: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, name: str, how: str
) -> None:
    opened = Bundle.open(bundle("llava"))
    arrays = damaged(opened.read_arrays(SELFTEST), name, how)
    monkeypatch.setattr(Bundle, "read_arrays", lambda *_: arrays)
    with pytest.raises(BundleError, match=rf"selftest\.npz is damaged: (top_\w+|{name})"):
        stored(opened)


def test_few_slots_shorten_the_prompt_and_leave_the_picture_out(
    loaded: Any, parts_of: Parts
) -> None:
    parts = parts_of(loaded("llava"))
    from dataclasses import replace

    parts.manifest = replace(parts.manifest, slots=6)
    arrays = recorded(parts, TOLERANCE)
    assert "picture" not in arrays and len(arrays["prompt"]) <= 3
    assert compare(parts, arrays).passed
