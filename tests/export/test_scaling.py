"""Scaling by activations: the same model, and less lost where some inputs are large."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="exporting needs torch")

from tightrope.errors import UnsupportedModel  # noqa: E402
from tightrope.export import scaling  # noqa: E402
from tightrope.export.checkpoint import open_checkpoint  # noqa: E402
from tightrope.export.late import LateModel, Parameters  # noqa: E402
from tightrope.export.quantising import error, logits, rounded  # noqa: E402
from tightrope.export.rounding import Rounding  # noqa: E402

Find = Callable[[str], Path]
IDS = torch.arange(3, 51).reshape(3, 16)
ASKED = [{"input_ids": row[None]} for row in IDS]
ROUNDING = Rounding(32)


def with_outliers(checkpoint: Path) -> LateModel:
    """A model in which a few inputs of each group are large, as in trained ones."""
    late = open_checkpoint(checkpoint).late_model()
    sources: dict[str, Callable[[], Any]] = {
        name: functools.partial(late.parameters.__getitem__, name) for name in late.parameters
    }
    for place in late.places():
        if place.name.endswith("layernorm.weight"):
            large = torch.arange(len(place.value)) % 16 == 3
            place.value.copy_(torch.where(large, 12.0, 0.5))
            sources[place.name] = place.value.clone().detach
    return LateModel(late.model, Parameters(sources))


def test_any_text_family_stays_the_model_that_it_was(
    text_family: str, checkpoint: Find, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the factors are."""

    def drawn(_: Any, __: Any, group: scaling.Group, inputs: Any) -> Any:
        return torch.empty_like(group.pooled(inputs[0])).uniform_(0.5, 2)

    monkeypatch.setattr(scaling, "_best", drawn)
    late = open_checkpoint(checkpoint(text_family)).late_model()
    before = logits(late, ASKED)
    same, count = scaling.scaled(late, Rounding(1), ASKED)
    assert error(before, logits(same, ASKED)) < 1e-4
    # Phi-3 has two matrices that a norm feeds, the others more.
    assert count >= 2 * len(late.model.get_decoder().layers)


def test_less_is_lost_where_some_inputs_are_large(checkpoint: Find) -> None:
    late = with_outliers(checkpoint("llama"))
    expected = logits(late, ASKED)
    before = error(expected, logits(late, ASKED, rounded(late, ROUNDING)))
    same, count = scaling.scaled(late, ROUNDING, ASKED[:2])
    after = error(expected, logits(same, ASKED, rounded(same, ROUNDING)))
    assert count >= 12 and after < 0.9 * before


def test_columns_and_what_feeds_them_go_together(checkpoint: Find) -> None:
    late = with_outliers(checkpoint("llama"))
    layer = late.model.model.layers[0]
    norm = layer.input_layernorm.weight.clone()
    same, _ = scaling.scaled(late, ROUNDING, ASKED)
    name = "model.layers.0.self_attn.{}.weight".format
    factors = norm / layer.input_layernorm.weight
    assert float(factors.max() / factors.min()) > 1.5
    for part in ("q_proj", "k_proj"):
        own = late.parameters[name(part)].float()
        torch.testing.assert_close(same.parameters[name(part)], own * factors)
    assert factors[3] > factors[4], "what is large is divided more"


def test_a_model_that_scaling_would_change_is_refused(
    checkpoint: Find, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scaling, "_added", lambda _: 1.0)  # as if its norms were a gemma's
    with pytest.raises(UnsupportedModel, match="scaling by activations would change this model"):
        scaling.scaled(with_outliers(checkpoint("llama")), ROUNDING, ASKED)


def test_the_same_set_gives_the_same_factors(checkpoint: Find) -> None:
    results: list[Any] = []
    for _ in range(2):
        same, _ = scaling.scaled(with_outliers(checkpoint("llama")), ROUNDING, ASKED)
        results.append({name: same.parameters[name] for name in same.parameters})
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])
