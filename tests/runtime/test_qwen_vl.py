"""Qwen2.5-VL and Qwen3-VL through the public interface, against Hugging Face's own models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest

from tightrope.bundle import Bundle
from tightrope.errors import InputError
from tightrope.plugins.slot_attention.policies import POLICIES
from tightrope.point import OperatingPoint
from tightrope.runtime.model import Model

Load = Callable[[str], Model]
Oracle = Callable[[str], Any]
Floats = npt.NDArray[np.float32]
LOGITS, MASKED = 1e-4, 1e-3
FASTV_LAYER, STEPS = 2, 8
QUESTION = "what is on the left?"
FAMILIES = ("qwen2_5_vl", "qwen3_vl")
BUDGETS = {"qwen2_5_vl": (72, 96, 48), "qwen3_vl": (96, 128, 64)}
SIZES = ((80, 60), (31, 97), (200, 50), (9, 9))
"""Of pictures, larger and smaller than what they become."""
families = pytest.mark.parametrize("name", FAMILIES)


def picture(seed: int, size: tuple[int, int]) -> PIL.Image.Image:
    rng = np.random.default_rng(seed)
    return PIL.Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8))


def pictures(count: int) -> list[PIL.Image.Image]:
    return [picture(seed, size) for seed, size in enumerate(SIZES[:count])]


def agree(ours: Floats, theirs: Floats, tokens: Sequence[int], atol: float = LOGITS) -> None:
    np.testing.assert_allclose(ours, theirs, atol=atol, rtol=0)
    assert theirs.argmax(-1).tolist() == list(tokens)


def ask(model: Model, images: int, **point: Any) -> Any:
    chosen = OperatingPoint(**point)
    return model.generate(
        QUESTION, pictures(images), max_tokens=STEPS, ignore_eos=True, point=chosen
    )


@families
@pytest.mark.parametrize("budget", [0, 1, 2])
def test_images_of_several_sizes_answer_as_hugging_face(
    name: str, budget: int, recorded: Load, qwen: Oracle
) -> None:
    model, resolution = recorded(name), BUDGETS[name][budget]
    backend: Any = model.backend
    answer = ask(model, 4, resolution=resolution)
    whole = qwen(name).prompt(model.token_ids(QUESTION, 4), pictures(4), resolution)
    assert answer.usage.prompt_tokens == len(whole.ids)
    assert answer.usage.visual_tokens == len(whole.visual)
    agree(backend.logits, whole.continued(answer.token_ids), answer.token_ids)


@families
@pytest.mark.parametrize("chunk", [32, 1024])
def test_700_tokens_around_images_in_chunks(
    name: str, chunk: int, recorded: Load, qwen: Oracle
) -> None:
    model = recorded(name)
    backend: Any = model.backend
    manifest = replace(model.bundle.manifest, prefill_chunk=chunk)
    model = Model(Bundle(model.bundle.path, manifest), model.backend)
    rng = np.random.default_rng(3)
    ids = rng.integers(5, 256, 680).tolist()
    marker = manifest.vision.image_token_id if manifest.vision else -1
    ids[40:40] = [marker]
    ids[500:500] = [marker]
    answer = model.generate(ids, pictures(2), max_tokens=STEPS, ignore_eos=True)
    whole = qwen(name).prompt(ids, pictures(2), BUDGETS[name][0])
    assert answer.usage.prompt_tokens == len(whole.ids) > 700
    agree(backend.logits, whole.continued(answer.token_ids), answer.token_ids)


@families
def test_later_turns_go_on_at_the_positions_of_the_whole_conversation(
    name: str, recorded: Load, qwen: Oracle
) -> None:
    model = recorded(name)
    backend: Any = model.backend
    chat, shown = model.chat(), pictures(2)
    first = chat.ask("what is it?", shown[:1], max_tokens=6)
    plain = chat.ask("and now?", max_tokens=6)
    assert plain.usage.cached_tokens > first.usage.visual_tokens > 9
    backend.forget()
    last = chat.ask("and this one?", shown[1:], max_tokens=6)
    assert last.usage.cached_tokens > plain.usage.prompt_tokens and last.notes == ()
    whole = qwen(name).prompt(model.token_ids(chat.messages[:-1], 2), shown, BUDGETS[name][0])
    agree(backend.logits, whole.continued(last.token_ids), last.token_ids)


@families
@pytest.mark.parametrize("method", ["divprune", "uniform", "random"])
@pytest.mark.parametrize("images", [1, 3])
def test_selected_tokens_keep_their_positions_and_levels(
    name: str, method: str, images: int, recorded: Load, qwen: Oracle
) -> None:
    model = recorded(name)
    backend: Any = model.backend
    answer = ask(model, images, selector=method, keep="25%")
    whole = qwen(name).prompt(model.token_ids(QUESTION, images), pictures(images), BUDGETS[name][0])
    kept = backend.prompt[1].tolist()
    dropped = set(range(len(whole.ids))) - set(kept)
    assert dropped < set(whole.visual)
    assert answer.usage.visual_tokens_kept == len(whole.visual) - len(dropped)
    assert len(dropped) > len(whole.visual) // 2
    agree(backend.logits, whole.without(kept, answer.token_ids), answer.token_ids)


@families
def test_a_schedule_drops_levels_with_their_tokens(
    name: str, recorded: Load, qwen: Oracle, oracle: Any
) -> None:
    model = recorded(name)
    backend: Any = model.backend
    answer = ask(model, 2, selector="fastv", keep=5)
    whole = qwen(name).prompt(model.token_ids(QUESTION, 2), pictures(2), BUDGETS[name][0])
    attention = whole.last_attention(FASTV_LAYER - 1)
    ranked = sorted(whole.visual, key=lambda place: -attention[place])
    assert answer.usage.visual_tokens_kept == 10
    held = set(backend.slots.position[FASTV_LAYER][0, 0].tolist()) - {-1}
    assert set(range(len(whole.ids))) - held == set(ranked[10:])
    remove = oracle.hidden_from(whole.model, FASTV_LAYER, sorted(ranked[10:]))
    try:
        expected = whole.continued(answer.token_ids)
    finally:
        remove()
    agree(backend.logits, expected, answer.token_ids, MASKED)


@families
@pytest.mark.parametrize("method", ["divprune", "uniform", "fastv"])
def test_keeping_everything_changes_no_token(name: str, method: str, recorded: Load) -> None:
    model = recorded(name)
    backend: Any = model.backend
    whole = ask(model, 2)
    logits = backend.logits
    backend.forget()
    kept = ask(model, 2, selector=method, keep="100%")
    assert kept.token_ids == whole.token_ids
    np.testing.assert_array_equal(backend.logits, logits)


@families
@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_a_budget_that_holds_everything_changes_no_token(
    name: str, policy: str, loaded: Load
) -> None:
    free = ask(loaded(name), 2)
    held = ask(loaded(name), 2, policy=policy, kv_budget=free.usage.occupied_slots)
    assert held.token_ids == free.token_ids


@families
def test_a_chain_and_a_budget_compose(name: str, loaded: Load) -> None:
    answer = ask(
        loaded(name), 2, selector="divprune+fastv", keep=(8, 4), policy="h2o", kv_budget=30
    )
    assert answer.usage.visual_tokens_kept == 8
    assert answer.usage.occupied_slots == 30
    assert len(answer.token_ids) == STEPS


@families
def test_several_rows_are_decoded_at_the_same_positions(name: str, loaded: Load) -> None:
    alone = ask(loaded(name), 1)
    answer = loaded(name).generate(
        QUESTION, pictures(1), max_tokens=STEPS, ignore_eos=True, n=2, temperature=0.0
    )
    assert answer.samples is not None
    assert {sample.token_ids for sample in answer.samples} == {alone.token_ids}


@families
def test_counting_a_prompt_decodes_nothing_and_agrees(name: str, loaded: Load) -> None:
    model = loaded(name)
    counted = model.count(QUESTION, pictures(3), max_tokens=STEPS)
    answer = ask(model, 3)
    assert counted.prompt_tokens == answer.usage.prompt_tokens
    assert counted.visual_tokens == answer.usage.visual_tokens
    assert counted.occupied_slots == answer.usage.occupied_slots


@families
@pytest.mark.parametrize(
    ("size", "said"),
    [
        ((2010, 10), "one side may be at most 200 times the other"),
        ((3000, 20), "visual tokens, at resolution .* there are at most 36"),
    ],
)
def test_images_that_no_grid_holds_are_told_before_anything_runs(
    name: str, size: tuple[int, int], said: str, loaded: Load
) -> None:
    model = loaded(name)
    with pytest.raises(InputError, match=said):
        model.generate(QUESTION, [picture(0, size)])
    with pytest.raises(InputError, match=said):
        model.count(QUESTION, [picture(0, size)])


@families
def test_a_budget_that_the_bundle_was_not_made_for_is_refused(name: str, loaded: Load) -> None:
    with pytest.raises(InputError, match="the bundle was made for"):
        ask(loaded(name), 1, resolution=BUDGETS[name][0] + 4)
