"""Turns of a chat on the same slots, against the conversation read from its start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import PIL.Image
import pytest

from tightrope.errors import InputError
from tightrope.point import OperatingPoint
from tightrope.runtime.held import hold_images
from tightrope.runtime.loaded import Loaded
from tightrope.runtime.model import Model
from tightrope.runtime.stopwatch import Stopwatch

Load = Callable[[str], Model]
HuggingFace = Callable[[str], Any]
LOGITS = 1e-4
TURNS = ("how many cups are there on the table in front of you?", "and which of them is red?")


def picture(seed: int) -> PIL.Image.Image:
    rng = np.random.default_rng(seed)
    return PIL.Image.fromarray(rng.integers(0, 256, (56, 56, 3), np.uint8))


def test_a_second_turn_reads_only_what_is_new(
    recorded: Load, hugging_face: HuggingFace, oracle: Any
) -> None:
    model, theirs = recorded("llama"), hugging_face("llama")
    backend: Any = model.backend
    chat = model.chat()
    first = chat.ask(TURNS[0], max_tokens=15)
    assert first.usage.cached_tokens == 0
    backend.forget()
    second = chat.ask(TURNS[1], max_tokens=15)
    # Everything but the first answer's last token, which nothing was asked after.
    assert second.usage.cached_tokens == first.usage.prompt_tokens + 14
    assert second.notes == ()
    new = second.usage.prompt_tokens - second.usage.cached_tokens
    read = range(second.usage.cached_tokens, second.usage.cached_tokens + new)
    assert backend.prompt[1].tolist() == list(read)
    ids = model.token_ids(chat.messages[:-1])
    assert len(ids) == second.usage.prompt_tokens
    expected = oracle.continued(theirs, oracle.text_embeds(theirs, ids), second.token_ids)
    np.testing.assert_allclose(backend.logits, expected, atol=LOGITS)
    assert expected.argmax(-1).tolist() == list(second.token_ids)
    afresh = model.generate(chat.messages[:-1], max_tokens=15)
    assert afresh.token_ids == second.token_ids


def test_images_of_earlier_turns_stay_in_the_slots(
    recorded: Load, hugging_face: HuggingFace, oracle: Any, parts_of: Callable[[Model], Loaded]
) -> None:
    model, theirs = recorded("llava"), hugging_face("llava")
    backend: Any = model.backend
    chat = model.chat()
    images = [picture(1), picture(2)]
    chat.ask("what is it?", images[:1], max_tokens=6)
    plain = chat.ask("and now?", max_tokens=6)
    assert plain.usage.cached_tokens > 16 and plain.usage.visual_tokens == 0
    backend.forget()
    last = chat.ask("and this one?", images[1:], max_tokens=6)
    assert last.usage.cached_tokens > plain.usage.prompt_tokens
    assert last.usage.visual_tokens == 16
    vision = parts_of(model).vision
    assert vision is not None
    entries = hold_images(images)
    prepared = vision.prepare(entries, 56, Stopwatch())
    pixels = np.concatenate([prepared[entry.digest]["pixel_values"] for entry in entries])
    ids = model.token_ids(chat.messages[:-1], 2)
    embeds = oracle.with_images(theirs, ids, oracle.image_embeds(theirs, pixels))
    expected = oracle.continued(theirs, embeds, last.token_ids)
    np.testing.assert_allclose(backend.logits, expected, atol=LOGITS)
    assert expected.argmax(-1).tolist() == list(last.token_ids)


def test_a_budget_in_the_second_turn_gives_up_slots_of_the_first(loaded: Load) -> None:
    chat = loaded("llama").chat()
    first = chat.ask("x" * 150, max_tokens=5)
    assert first.usage.occupied_slots > 150
    point = OperatingPoint(policy="snapkv", kv_budget=70)
    second = chat.ask("y" * 30, max_tokens=40, ignore_eos=True, point=point)
    assert second.usage.cached_tokens > 150 and second.notes == ()
    assert second.usage.occupied_slots == 70
    third = chat.ask("z", max_tokens=5)
    assert third.usage.cached_tokens > 200
    assert third.usage.occupied_slots < 90


def test_another_policy_reads_the_conversation_again_and_says_so(loaded: Load) -> None:
    chat = loaded("llama").chat()
    chat.ask("x" * 90, max_tokens=5, point=OperatingPoint(policy="h2o", kv_budget=60))
    point = OperatingPoint(policy="knorm", kv_budget=60)
    second = chat.ask("y" * 30, max_tokens=5, point=point)
    assert second.usage.cached_tokens == 0
    assert any("another policy" in note for note in second.notes)
    whole = loaded("llama").generate(chat.messages[:-1], max_tokens=5, point=point)
    assert second.token_ids == whole.token_ids


def test_a_turn_without_a_budget_goes_on_under_the_conversations_policy(loaded: Load) -> None:
    chat = loaded("llama").chat()
    point = OperatingPoint(policy="h2o", kv_budget=60)
    chat.ask("x" * 90, max_tokens=5, point=point)
    free = chat.ask("y" * 9, max_tokens=5)
    assert free.notes == () and free.usage.cached_tokens > 90
    again = chat.ask("z" * 9, max_tokens=5, point=point)
    assert again.notes == () and again.usage.cached_tokens > 100
    assert again.usage.occupied_slots == 60


def test_another_selection_of_an_image_reads_the_conversation_again(loaded: Load) -> None:
    chat = loaded("llava").chat()
    chat.ask("what is it?", [picture(7)], max_tokens=4)
    point = OperatingPoint(selector="divprune", keep=4)
    second = chat.ask("and now?", max_tokens=4, point=point)
    assert second.usage.cached_tokens == 0 and len(second.notes) == 1
    assert second.usage.visual_tokens_kept == 4


def test_a_turn_can_be_cancelled_like_any_stream(loaded: Load) -> None:
    chat = loaded("llama").chat()
    stream = chat.stream(TURNS[0], max_tokens=2000, ignore_eos=True)
    next(stream)
    stream.cancel()
    *_, last = stream
    assert last.answer is not None and last.answer.finish_reason == "cancelled"
    assert chat.messages[-1] == {"role": "assistant", "content": last.answer.text}
    second = chat.ask(TURNS[1], max_tokens=5)
    assert second.usage.cached_tokens > 0 or second.notes


def test_an_answer_cut_by_a_stop_string_is_read_again_and_said(loaded: Load) -> None:
    model = loaded("llama")
    chat = model.chat()
    whole = model.generate([{"role": "user", "content": TURNS[0]}], max_tokens=12)
    chat.ask(TURNS[0], max_tokens=12, stop=[whole.text[4:7]])
    second = chat.ask(TURNS[1], max_tokens=12)
    assert second.usage.cached_tokens == 0
    assert any("read again" in note for note in second.notes)
    assert second.token_ids == model.generate(chat.messages[:-1], max_tokens=12).token_ids


def test_a_turn_that_was_cancelled_half_way_counts_as_far_as_it_got(loaded: Load) -> None:
    model = loaded("llama")
    chat = model.chat()
    pieces = chat.stream(TURNS[0], max_tokens=50)
    said = "".join(next(pieces).text for _ in range(5))
    pieces.close()
    assert chat.messages == []
    again = chat.ask(TURNS[0], max_tokens=8)
    assert again.text.startswith(said)
    fresh = model.generate([{"role": "user", "content": TURNS[0]}], max_tokens=8)
    assert again.token_ids == fresh.token_ids


def test_a_failed_turn_leaves_the_chat_as_it_was(loaded: Load) -> None:
    model = loaded("llama")
    chat = model.chat()
    chat.ask(TURNS[0], max_tokens=5)
    before = list(chat.messages)
    with pytest.raises(InputError, match="slots"):
        chat.ask("x" * 3000)
    assert chat.messages == before
    second = chat.ask(TURNS[1], max_tokens=9)
    assert second.token_ids == model.generate(chat.messages[:-1], max_tokens=9).token_ids


def test_a_chat_goes_on_from_one_answer(loaded: Load) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'n'"):
        loaded("llama").chat().ask(TURNS[0], n=3)  # type: ignore[call-arg]


def test_a_system_message_comes_first(loaded: Load) -> None:
    chat = loaded("llama").chat(system="be brief")
    chat.ask("hello", max_tokens=3)
    assert [message["role"] for message in chat.messages] == ["system", "user", "assistant"]
