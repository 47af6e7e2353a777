"""Models whose matrices are read while a module computes: the same numbers, without the memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="exporting needs torch")

from tightrope.export.checkpoint import open_checkpoint  # noqa: E402
from tightrope.export.late import parameters_of, rests  # noqa: E402

Find = Callable[[str], Path]
IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])


def logits(model: Any) -> Any:
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits


def test_a_late_model_of_any_text_family_computes_what_a_loaded_one_does(
    text_family: str, checkpoint: Find
) -> None:
    opened = open_checkpoint(checkpoint(text_family))
    late, loaded = opened.late_model(), opened.load_model()
    with late.computing():
        assert torch.equal(logits(late.model), logits(loaded))


@pytest.mark.parametrize("name", ["llama", "qwen2", "llava"])
def test_matrices_take_no_memory_and_what_is_read_past_its_module_is_nan(
    name: str, checkpoint: Find
) -> None:
    late = open_checkpoint(checkpoint(name)).late_model()
    resting = [place for place in late.places() if rests(place.value)]
    assert {"lm_head.weight", *(place.name for place in resting)} == {
        place.name for place in resting
    }
    assert all(place.value.untyped_storage().nbytes() == 4 for place in resting)
    held = sum(place.value.numel() for place in late.places() if place not in resting)
    assert held < 0.2 * sum(place.value.numel() for place in late.places())
    assert logits(late.model).isnan().all()


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3_moe", "llava", "qwen2_5_vl"])
def test_parameters_are_what_the_model_would_hold_by_every_name(
    name: str, checkpoint: Find
) -> None:
    opened = open_checkpoint(checkpoint(name))
    late, named = opened.late_model(), parameters_of(opened.load_model())
    assert late.parameters.keys() == named.keys()
    for key, value in named.items():
        assert torch.equal(late.parameters[key].float(), value.float()), key
    tied = late.model.get_output_embeddings().weight is late.model.get_input_embeddings().weight
    assert tied is (name == "qwen2")


def test_other_values_are_read_while_a_module_computes_and_then_forgotten(
    checkpoint: Find,
) -> None:
    late = open_checkpoint(checkpoint("llama")).late_model()
    seen = []

    def read(place: Any) -> Any:
        if place.name != "lm_head.weight":
            return None
        seen.append(place.name)
        return late.parameters[place.name].float() * 2

    with late.computing():
        plain = logits(late.model)
    with late.computing(read):
        doubled = logits(late.model)
    with late.computing():
        again = logits(late.model)
    assert seen == ["lm_head.weight"]
    torch.testing.assert_close(doubled, 2 * plain)
    assert torch.equal(plain, again) and rests(late.model.lm_head.weight)


def test_a_module_that_fails_gives_its_weights_back(checkpoint: Find) -> None:
    late = open_checkpoint(checkpoint("llama")).late_model()
    with late.computing(), pytest.raises(RuntimeError):
        late.model.lm_head(torch.ones(1, 3))
    assert rests(late.model.lm_head.weight)
    assert not late.model.lm_head._forward_hooks and not late.model.lm_head._forward_pre_hooks


def test_what_stays_is_changed_in_place(checkpoint: Find) -> None:
    late = open_checkpoint(checkpoint("llama")).late_model()
    late.settle(lambda place: place.value + 1)
    norm = "model.norm.weight"
    assert torch.equal(late.model.model.norm.weight, late.parameters[norm].float() + 1)
