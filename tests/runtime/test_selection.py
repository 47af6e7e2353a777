"""Visual tokens that are dropped: what the later layers see is what Hugging Face's would."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest

from tightrope.errors import InputError
from tightrope.interface.calls import Call, Selection
from tightrope.point import OperatingPoint
from tightrope.runtime.cancel import Cancel
from tightrope.runtime.held import hold_images
from tightrope.runtime.loaded import Loaded
from tightrope.runtime.model import Model
from tightrope.runtime.settings import resolve
from tightrope.runtime.slots import Slots
from tightrope.runtime.stopwatch import Stopwatch

Load = Callable[[str], Model]
HuggingFace = Callable[[str], Any]
Floats = npt.NDArray[np.float32]
LOGITS = 1e-4
KV = 1e-3
QUESTION = "what is on the left?"
STEPS = 8
FASTV_LAYER = 2


def picture(seed: int, side: int = 56) -> PIL.Image.Image:
    rng = np.random.default_rng(seed)
    return PIL.Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8))


def ask(model: Model, images: int, **point: Any) -> Any:
    """The answer of a fixed length to a fixed question about `images` pictures."""
    pictures = [picture(seed) for seed in range(images)]
    chosen = OperatingPoint(**point)
    return model.generate(QUESTION, pictures, max_tokens=STEPS, ignore_eos=True, point=chosen)


def prepared(model: Model, pictures: Sequence[PIL.Image.Image]) -> dict[str, Any]:
    """The tower's inputs of pictures at 56 pixels, as if it looked at all of them at once."""
    vision = Loaded(model.bundle, model.backend, time.perf_counter).vision
    assert vision is not None
    images = hold_images(pictures)
    ready = vision.prepare(images, 56, Stopwatch())
    pixels = [ready[image.digest]["pixel_values"] for image in images]
    return dict(ready[images[0].digest]) | {"pixel_values": np.concatenate(pixels)}


def whole_prompt(model: Model, theirs: Any, oracle: Any, images: int) -> tuple[Any, list[int]]:
    """Hugging Face's embeddings [S,E] of `ask`'s prompt, and the places of its visual tokens."""
    pixels = prepared(model, [picture(seed) for seed in range(images)])["pixel_values"]
    ids = model.token_ids(QUESTION, images)
    features = oracle.image_embeds(theirs, pixels)
    kinds: list[bool] = []
    for token in ids:
        visual = token == theirs.config.image_token_id
        kinds += [visual] * (features.shape[1] if visual else 1)
    return oracle.with_images(theirs, ids, features), np.flatnonzero(kinds).tolist()


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("keep", [1, 4, "25%", 15])
def test_fastv_equals_a_model_that_masks_the_dropped_tokens_from_layer_two(
    keep: int | str, images: int, recorded: Load, hugging_face: HuggingFace, oracle: Any
) -> None:
    model, theirs = recorded("llava"), hugging_face("llava")
    backend: Any = model.backend
    answer = ask(model, images, selector="fastv", keep=keep)
    embeds, visual = whole_prompt(model, theirs, oracle, images)
    count = (4 if keep == "25%" else int(keep)) * images
    assert answer.usage.visual_tokens_kept == count
    attention = oracle.last_attention(theirs, embeds, range(len(embeds)), FASTV_LAYER - 1)
    ranked = sorted(visual, key=lambda place: -attention[place])
    dropped = sorted(ranked[count:])
    # All images of a call compete for the sum of their keeps.
    for layer, position in enumerate(backend.slots.position):
        held = set(position[0, 0].tolist()) - {-1}
        missing = set(range(len(embeds))) - held
        assert missing == (set(dropped) if layer >= FASTV_LAYER else set())
    remove = oracle.hidden_from(theirs, FASTV_LAYER, dropped)
    try:
        expected = oracle.continued(theirs, embeds, answer.token_ids)
    finally:
        remove()
    np.testing.assert_allclose(backend.logits, expected, atol=KV)
    assert expected.argmax(-1).tolist() == list(answer.token_ids)


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("method", ["divprune", "flashvlm", "uniform", "random", "visionzip"])
def test_selecting_before_the_model_equals_its_shortened_prompt_at_its_own_positions(
    method: str, images: int, recorded: Load, hugging_face: HuggingFace, oracle: Any
) -> None:
    model, theirs = recorded("llava"), hugging_face("llava")
    backend: Any = model.backend
    answer = ask(model, images, selector=method, keep="25%")
    assert answer.usage.visual_tokens_kept == 4 * images
    assert answer.usage.visual_tokens == 16 * images
    embeds, visual = whole_prompt(model, theirs, oracle, images)
    given, ordinals = backend.prompt
    dropped = set(range(len(embeds))) - set(ordinals.tolist())
    assert dropped < set(visual) and len(dropped) == 12 * images
    for image in range(images):
        own = set(visual[16 * image : 16 * (image + 1)])
        assert len(own & dropped) == 12
    shortened = embeds[ordinals.tolist()]
    text = ~np.isin(ordinals, visual)
    np.testing.assert_allclose(given[text], shortened.numpy()[text], atol=LOGITS)
    if method == "visionzip":  # merged tokens are the method's own
        import torch

        shortened = torch.from_numpy(given)
    else:
        np.testing.assert_allclose(given, shortened.numpy(), atol=LOGITS)
    expected = oracle.continued(theirs, shortened, answer.token_ids, ordinals)
    np.testing.assert_allclose(backend.logits, expected, atol=LOGITS)
    assert expected.argmax(-1).tolist() == list(answer.token_ids)


def test_a_chain_selects_before_and_inside(
    recorded: Load, hugging_face: HuggingFace, oracle: Any
) -> None:
    model, theirs = recorded("llava"), hugging_face("llava")
    backend: Any = model.backend
    answer = ask(model, 2, selector="uniform+fastv", keep=(8, 3))
    assert answer.usage.visual_tokens_kept == 6
    embeds, visual = whole_prompt(model, theirs, oracle, 2)
    _, ordinals = backend.prompt
    entered = [int(ordinal) for ordinal in ordinals if int(ordinal) in set(visual)]
    assert len(entered) == 16
    shortened = embeds[ordinals.tolist()]
    attention = oracle.last_attention(theirs, shortened, ordinals, FASTV_LAYER - 1)
    places = np.flatnonzero(np.isin(ordinals, visual)).tolist()
    ranked = sorted(places, key=lambda place: -attention[place])
    dropped = sorted(ranked[6:])
    missing = set(ordinals.tolist()) - set(backend.slots.position[3][0, 0].tolist())
    assert missing == {int(ordinals[place]) for place in dropped}
    remove = oracle.hidden_from(theirs, FASTV_LAYER, dropped)
    try:
        expected = oracle.continued(theirs, shortened, answer.token_ids, ordinals)
    finally:
        remove()
    np.testing.assert_allclose(backend.logits, expected, atol=KV)


@pytest.mark.parametrize("keep", ["100%", 16])
@pytest.mark.parametrize(
    "method", ["divprune", "flashvlm", "visionzip", "uniform", "random", "fastv"]
)
def test_keeping_everything_changes_no_token(method: str, keep: int | str, recorded: Load) -> None:
    model = recorded("llava")
    backend: Any = model.backend
    whole = ask(model, 2)
    logits = backend.logits
    backend.forget()
    kept = ask(model, 2, selector=method, keep=keep)
    assert kept.token_ids == whole.token_ids
    np.testing.assert_array_equal(backend.logits, logits)


@pytest.mark.parametrize("method", ["divprune", "flashvlm"])
def test_a_selectors_graph_asked_for_everything_returns_it_in_order(
    method: str, loaded: Load, parts_of: Callable[[Model], Loaded]
) -> None:
    model = loaded("llava")
    tokens = model.backend.vision(prepared(model, [picture(4), picture(5)]), Cancel())
    text = parts_of(model).embeddings(model.token_ids(QUESTION))
    index, embeds = model.backend.select(method, tokens, text, 16)
    np.testing.assert_array_equal(index, np.tile(np.arange(16), (2, 1)))
    np.testing.assert_array_equal(embeds, tokens.embeds)


def test_fastvs_graph_asked_for_everything_is_the_plain_decoder(recorded: Load) -> None:
    model = recorded("llava")
    backend: Any = model.backend
    ask(model, 1)
    embeds, ordinals = backend.prompt
    settings = resolve(None, model.bundle.manifest)
    call = Call(
        embeds[None],
        ordinals[None],
        ordinals[None].astype(np.int64),
        settings.kv_budget,
        settings.policy,
    )
    visual = np.arange(16)[None] + len(model.token_ids(QUESTION, 1)[:1])
    slots = Slots(model.bundle.manifest.dims, 1, backend.make_storage)
    slots.make_room(np.full(4, len(ordinals)), settings.kv_budget.max(1))
    plain, plain_update = backend.prefill(slots, call, Cancel())
    selection = Selection("fastv", visual, (16,), (FASTV_LAYER,))
    staged, staged_update = backend.prefill(slots, replace(call, selection=selection), Cancel())
    np.testing.assert_allclose(staged, plain, atol=1e-5)
    for layer in range(4):
        np.testing.assert_array_equal(staged_update.target[layer], plain_update.target[layer])
        np.testing.assert_allclose(staged_update.key[layer], plain_update.key[layer], atol=1e-5)


def test_selecting_less_costs_less_slots_in_the_later_layers(loaded: Load) -> None:
    model = loaded("llava")
    whole = ask(model, 2).usage.occupied_slots
    before = ask(model, 2, selector="divprune", keep=4).usage.occupied_slots
    inside = ask(model, 2, selector="fastv", keep=4).usage.occupied_slots
    assert before == whole - 24
    assert inside == whole  # layers before the stage hold everything


def test_selection_and_a_budget_compose(loaded: Load) -> None:
    model = loaded("llava")
    answer = ask(model, 3, selector="divprune+fastv", keep=(8, 4), policy="h2o", kv_budget=30)
    assert answer.usage.occupied_slots == 30
    assert answer.usage.visual_tokens_kept == 12
    assert len(answer.token_ids) == STEPS


def test_a_schedule_needs_its_prompt_in_one_call(loaded: Load) -> None:
    model = loaded("llava")
    point = OperatingPoint(selector="fastv", keep=4)
    with pytest.raises(InputError, match="prefill_chunk"):
        model.generate("x" * 600, [picture(1)], point=point)


def test_a_random_selection_follows_the_seed(recorded: Load) -> None:
    model = recorded("llava")
    backend: Any = model.backend
    point = OperatingPoint(selector="random", keep=4)
    seen = []
    for seed in (1, 1, 2):
        backend.forget()
        model.generate(QUESTION, [picture(1)], max_tokens=1, seed=seed, point=point)
        seen.append(backend.prompt[1].tolist())
    assert seen[0] == seen[1] != seen[2]
