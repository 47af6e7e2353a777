"""Gemma 3 with images through the public interface, against Hugging Face's own model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest

from tightrope.bundle import Bundle, Manifest
from tightrope.plugins.slot_attention.policies import POLICIES
from tightrope.point import OperatingPoint
from tightrope.runtime.model import Model

Load = Callable[[str], Model]
Floats = npt.NDArray[np.float32]
NAME, TOKENS, STEPS = "gemma3-vl", 16, 8
LOGITS, HIDDEN = 1e-4, 1e-3
FASTV_LAYER = 2
QUESTION = "what is on the left?"
SIZES = ((80, 60), (31, 97), (56, 56))
IMAGE = {"type": "image"}


def pictures(count: int) -> list[PIL.Image.Image]:
    rng = np.random.default_rng(7)
    return [
        PIL.Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
        for width, height in SIZES[:count]
    ]


def asked(images: int) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [IMAGE] * images + [{"type": "text", "text": QUESTION}]}]


def whole(ids: Sequence[int], marker: int) -> list[int]:
    """The prompt with an id for each visual token."""
    return [token for one in ids for token in [one] * (TOKENS if one == marker else 1)]


def agree(ours: Floats, theirs: Floats, tokens: Sequence[int], atol: float = LOGITS) -> None:
    np.testing.assert_allclose(ours, theirs, atol=atol, rtol=0)
    assert theirs.argmax(-1).tolist() == list(tokens)


def ask(model: Model, images: int, **point: Any) -> Any:
    chosen = OperatingPoint(**point)
    return model.generate(
        QUESTION, pictures(images), max_tokens=STEPS, ignore_eos=True, point=chosen
    )


def in_chunks(model: Model, chunk: int) -> Model:
    manifest = replace(model.bundle.manifest, prefill_chunk=chunk)
    return Model(Bundle(model.bundle.path, manifest), model.backend)


@pytest.mark.parametrize(
    "messages",
    [
        asked(1),
        asked(3),
        [{"role": "user", "content": [{"type": "text", "text": "hm\n"}, IMAGE, IMAGE]}],
        [
            *asked(1),
            {"role": "assistant", "content": "a cup"},
            {"role": "user", "content": [{"type": "text", "text": "and "}, IMAGE]},
        ],
    ],
)
def test_line_breaks_around_an_image_join_as_the_processor_joins_them(
    messages: list[Any], loaded: Load, gemma: Any
) -> None:
    images = sum(part == IMAGE for message in messages for part in message["content"])
    ids = loaded(NAME).token_ids(messages, images)
    assert whole(ids, gemma.marker) == gemma.written(messages)


def test_what_users_write_stands_for_an_image_and_nothing_else_does(loaded: Load) -> None:
    model = loaded(NAME)
    told = model.token_ids("look <start_of_image>here", 1)
    parts = [{"type": "text", "text": "look "}, IMAGE, {"type": "text", "text": "here"}]
    assert told == model.token_ids([{"role": "user", "content": parts}], 1)
    for text in ("<start_of_image>", "<image_soft_token>"):
        assert not {4, 6} & set(model.token_ids(f"a {text}"))
    hidden = model.token_ids("a <image_soft_token> b", 1)
    assert (hidden.count(4), hidden.count(6)) == (1, 1)


@pytest.mark.parametrize("images", [1, 3])
def test_images_answer_as_hugging_face(images: int, recorded: Load, gemma: Any) -> None:
    model = recorded(NAME)
    backend: Any = model.backend
    answer = ask(model, images)
    ids = whole(model.token_ids(QUESTION, images), gemma.marker)
    counted = model.count(QUESTION, pictures(images))
    assert answer.usage.prompt_tokens == len(ids) == counted.prompt_tokens
    assert answer.usage.visual_tokens == TOKENS * images
    expected = gemma.continued(ids, pictures(images), answer.token_ids)
    agree(backend.logits, expected, answer.token_ids)


def test_an_image_sees_itself_whole(recorded: Load, gemma: Any) -> None:
    """Else the answer would be another: causal attention alone is far from the model's."""
    model = recorded(NAME)
    backend: Any = model.backend
    answer = ask(model, 1)
    ids = whole(model.token_ids(QUESTION, 1), gemma.marker)
    causal = gemma.model(
        inputs_embeds=gemma.embeds([*ids, *answer.token_ids[:-1]], gemma.seen(pictures(1)))[None],
        use_cache=False,
    ).logits[0, -STEPS:]
    assert np.abs(backend.logits - causal.numpy()).max() > 100 * LOGITS


@pytest.mark.parametrize("chunk", [TOKENS, 25, 64])
def test_no_call_ends_inside_an_image(chunk: int, recorded: Load, gemma: Any) -> None:
    model = in_chunks(recorded(NAME), chunk)
    backend: Any = model.backend
    rng = np.random.default_rng(3)
    ids = rng.integers(12, 256, 640).tolist()
    for place in (600, 333, 40):
        ids[place:place] = [gemma.marker]
    answer = model.generate(ids, pictures(3), max_tokens=STEPS, ignore_eos=True)
    long = whole(ids, gemma.marker)
    assert answer.usage.prompt_tokens == len(long) > 680
    lengths = [call.embeds.shape[1] for call in backend.calls[: -STEPS + 1]]
    assert max(lengths) <= chunk and sum(lengths) == len(long)
    counted = model.count(ids, pictures(3)).work.prefill
    assert [call.tokens for call in counted] == lengths
    for begin in np.cumsum([0, *lengths[:-1]]).tolist():
        assert long[begin] != gemma.marker or long[begin - 1] != gemma.marker
    agree(backend.logits, gemma.continued(long, pictures(3), answer.token_ids), answer.token_ids)


def test_a_later_turn_brings_another_image(recorded: Load, gemma: Any) -> None:
    model = recorded(NAME)
    backend: Any = model.backend
    chat, shown = model.chat(), pictures(2)
    first = chat.ask("what is it?", shown[:1], max_tokens=6)
    backend.forget()
    last = chat.ask("and this one?", shown[1:], max_tokens=6)
    assert last.notes == ()
    assert last.usage.cached_tokens == first.usage.prompt_tokens + len(first.token_ids) - 1
    ids = whole(model.token_ids(chat.messages[:-1], 2), gemma.marker)
    agree(backend.logits, gemma.continued(ids, shown, last.token_ids), last.token_ids)


@pytest.mark.parametrize("method", ["divprune", "uniform", "random"])
def test_what_is_left_of_an_image_sees_all_that_is_left(
    method: str, recorded: Load, gemma: Any
) -> None:
    model = recorded(NAME)
    backend: Any = model.backend
    answer = ask(model, 3, selector=method, keep="25%")
    ids = whole(model.token_ids(QUESTION, 3), gemma.marker)
    kept = backend.prompt[1].tolist()
    dropped = set(range(len(ids))) - set(kept)
    assert {ids[place] for place in dropped} == {gemma.marker} and len(dropped) == 36
    expected = gemma.without(ids, gemma.seen(pictures(3)), kept, answer.token_ids)
    agree(backend.logits, expected, answer.token_ids)


def test_a_schedule_drops_tokens_that_saw_the_whole_image(
    recorded: Load, gemma: Any, oracle: Any
) -> None:
    model = recorded(NAME)
    backend: Any = model.backend
    answer = ask(model, 2, selector="fastv", keep=5)
    ids = whole(model.token_ids(QUESTION, 2), gemma.marker)
    held = set(backend.slots.position[FASTV_LAYER + 1][0, 0].tolist()) - {-1}
    missing = sorted(set(range(len(ids))) - held)
    assert {ids[place] for place in missing} == {gemma.marker} and len(missing) == 22
    remove = oracle.hidden_from(gemma.model, FASTV_LAYER, missing)
    try:
        features = gemma.seen(pictures(2))
        expected = gemma.without(ids, features, range(len(ids)), answer.token_ids)
    finally:
        remove()
    agree(backend.logits, expected, answer.token_ids, HIDDEN)


@pytest.mark.parametrize("method", ["divprune", "fastv"])
def test_keeping_everything_changes_no_token(method: str, recorded: Load) -> None:
    model = recorded(NAME)
    backend: Any = model.backend
    free = ask(model, 2)
    logits = backend.logits
    backend.forget()
    kept = ask(model, 2, selector=method, keep="100%")
    assert kept.token_ids == free.token_ids
    np.testing.assert_array_equal(backend.logits, logits)


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_a_budget_that_holds_everything_changes_no_token(policy: str, loaded: Load) -> None:
    free = ask(loaded(NAME), 2)
    held = ask(loaded(NAME), 2, policy=policy, kv_budget=free.usage.occupied_slots)
    assert held.token_ids == free.token_ids


def test_a_chain_and_a_budget_compose(loaded: Load) -> None:
    point: dict[str, Any] = {"selector": "divprune+fastv", "keep": (8, 4)}
    answer = ask(loaded(NAME), 2, **point, policy="h2o", kv_budget=30)
    assert answer.usage.visual_tokens_kept == 8
    assert answer.usage.occupied_slots == 30 and len(answer.token_ids) == STEPS


def test_at_a_lower_resolution_fewer_tokens_are_made_of_the_same_patches(
    recorded: Load, gemma: Any
) -> None:
    model = recorded(NAME)
    backend: Any = model.backend
    answer = ask(model, 2, resolution=28)
    assert answer.usage.visual_tokens == 2 * 4
    features = gemma.seen(pictures(2), size={"height": 28, "width": 28})
    ids = [
        token
        for one in model.token_ids(QUESTION, 2)
        for token in [one] * (4 if one == gemma.marker else 1)
    ]
    expected = gemma.without(ids, features, range(len(ids)), answer.token_ids)
    agree(backend.logits, expected, answer.token_ids)


def test_several_rows_go_on_behind_an_image(loaded: Load) -> None:
    alone = ask(loaded(NAME), 1)
    answer = loaded(NAME).generate(
        QUESTION, pictures(1), max_tokens=STEPS, ignore_eos=True, n=2, temperature=0.0
    )
    assert answer.samples is not None
    assert {sample.token_ids for sample in answer.samples} == {alone.token_ids}


def test_a_manifest_whose_calls_hold_no_image_is_damaged(loaded: Load) -> None:
    manifest = loaded(NAME).bundle.manifest
    assert manifest.dims.reach
    values = manifest.to_dict()
    with pytest.raises(ValueError, match="images do not fit prefill_chunk 15"):
        Manifest.from_dict({**values, "prefill_chunk": 15})
