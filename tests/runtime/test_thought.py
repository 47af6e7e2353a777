"""Thoughts: what they are known by, how they are closed, and what is counted of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from tightrope.bundle import Bundle
from tightrope.errors import InputError
from tightrope.point import OperatingPoint
from tightrope.runtime.answer import Answer
from tightrope.runtime.model import Model
from tightrope.runtime.thought import Marks, Thought, after_thought, find_marks
from tightrope.runtime.tokenizer import Tokenizer

Find = Callable[[str], Path]
BEGIN, END = 254, 255
MARKS = Marks(begin=BEGIN, end=END, close=(253, END, 253, 253))


def refused() -> list[int]:
    raise InputError("the template does not mention it")


@pytest.fixture
def byte_level(backends: dict[str, Any], tmp_path: Path) -> Tokenizer:
    """As Qwen3's: byte-level, two newlines are one token."""
    tokenizer = tokenizers.Tokenizer.from_str(backends["byte_level"]().to_str())
    tokenizer.add_tokens(["<think>", "</think>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return Tokenizer(tmp_path / "tokenizer.json", {}, False)


def test_a_thought_is_closed_as_the_template_writes_an_empty_one(byte_level: Tokenizer) -> None:
    asked = "<|im_start|>user\nwhat<|im_end|>\n<|im_start|>assistant\n"
    said = byte_level.encode_prompt(asked + "<think>\n\n</think>\n\n")
    marks = find_marks(byte_level, lambda: said)
    assert marks is not None
    assert (marks.begin, marks.end) == tuple(map(byte_level.token_id, ("<think>", "</think>")))
    assert byte_level.decode(marks.close) == "\n</think>\n\n"
    # What follows it is what the model has read there, token by token.
    assert said[-len(marks.close) + 1 :] == list(marks.close[1:])


@pytest.mark.parametrize("no_thought", [refused, lambda: [7, 8, 9], list])
def test_a_template_that_leaves_no_thought_out_gets_the_usual_close(
    no_thought: Callable[[], list[int]], byte_level: Tokenizer
) -> None:
    marks = find_marks(byte_level, no_thought)
    assert marks is not None
    assert byte_level.decode(marks.close) == "\n</think>\n\n"


def test_only_the_last_thought_of_a_prompt_says_how_one_is_closed(byte_level: Tokenizer) -> None:
    said = byte_level.encode_prompt("a<think>b\n</think>c user <think></think>d")
    marks = find_marks(byte_level, lambda: said)
    assert marks is not None
    assert byte_level.decode(marks.close) == "</think>d"


def test_an_end_without_a_beginning_closes_with_what_follows(byte_level: Tokenizer) -> None:
    marks = find_marks(byte_level, lambda: byte_level.encode_prompt("hello\n</think>\n"))
    assert marks is not None
    assert byte_level.decode(marks.close) == "</think>\n"


def test_the_reference_model_closes_with_the_mark_alone(
    make_tokenizer: Callable[..., Tokenizer],
) -> None:
    tokenizer = make_tokenizer("reference")
    said = tokenizer.encode_prompt("USER: what ? ASSISTANT: <think> </think>")
    marks = find_marks(tokenizer, lambda: said)
    assert marks is not None
    assert marks.close == (tokenizer.token_id("</think>"),)


def test_a_vocabulary_without_both_marks_has_no_thoughts(
    make_tokenizer: Callable[..., Tokenizer],
) -> None:
    # It has a <think>, and no </think>.
    assert find_marks(make_tokenizer("byte_level"), lambda: [1]) is None
    assert find_marks(make_tokenizer("unigram"), lambda: [1]) is None


@pytest.mark.parametrize(
    ("prompt", "opened"),
    [
        ([], False),
        ([5, 6], False),
        ([5, BEGIN], True),
        ([5, BEGIN, 253], True),
        ([BEGIN, 7, END, 8], False),
        ([BEGIN, 7, END, 8, BEGIN, 9], True),
        ([END, 3], False),
    ],
)
def test_a_prompt_that_ends_inside_a_thought_has_opened_it(prompt: list[int], opened: bool) -> None:
    assert MARKS.opened(prompt) is opened


@given(st.lists(st.sampled_from((BEGIN, END, 5, 6)), max_size=30), st.booleans())
def test_what_stands_between_the_marks_is_counted(tokens: list[int], opened: bool) -> None:
    thought = Thought(MARKS, opened)
    for token in tokens:
        thought.push(token)
    inside, count = opened, 0
    for token in tokens:
        if token in (BEGIN, END):
            inside = token == BEGIN
        else:
            count += inside
    assert (thought.open, thought.tokens) == (inside, count)


def test_a_model_without_thoughts_counts_none() -> None:
    thought = Thought(None)
    for token in (BEGIN, 5, END):
        thought.push(token)
    assert (thought.open, thought.tokens) == (False, 0)


@pytest.fixture
def asked(thinker: Find, machines: ModuleType) -> Callable[..., Answer]:
    """`asked("told", tokens, ...)`: the answer of a model that says these tokens."""

    def ask(template: str, tokens: list[int], prompt: Any = "what", **options: Any) -> Answer:
        return model_of(thinker(template), machines, tokens).generate(prompt, **options)

    return ask


def model_of(folder: Path, machines: ModuleType, tokens: list[int]) -> Model:
    opened = Bundle.open(folder)
    return Model(opened, machines.Machine(opened, tokens))


def capped(count: int | None) -> OperatingPoint:
    return OperatingPoint(thinking_tokens=count)


@pytest.mark.parametrize("cap", [1, 2, 7])
def test_a_cap_closes_after_exactly_so_many_tokens(
    cap: int, asked: Callable[..., Answer], machines: ModuleType
) -> None:
    answer = asked("told", [BEGIN, *[40] * 50], point=capped(cap), max_tokens=cap + 9)
    close = machines.CLOSE
    assert answer.token_ids == (BEGIN, *[40] * cap, *close, *[40] * (9 - 1 - len(close)))
    assert answer.usage.thinking_tokens == cap
    assert answer.usage.injected_tokens == len(close)
    assert answer.finish_reason == "length"


@pytest.mark.parametrize("cap", [1, 5])
def test_a_thought_that_the_prompt_opened_is_capped_as_well(
    cap: int, asked: Callable[..., Answer], machines: ModuleType
) -> None:
    answer = asked("opened", [40] * 50, point=capped(cap), max_tokens=20)
    assert answer.token_ids[: cap + 4] == (*[40] * cap, *machines.CLOSE)
    assert answer.usage.thinking_tokens == cap


def test_a_cap_of_nothing_leaves_the_thought_out_where_the_template_can(
    asked: Callable[..., Answer], thinker: Find, machines: ModuleType
) -> None:
    tokens = [40, 41, machines.END]
    answer = asked("told", tokens, point=capped(0))
    model = model_of(thinker("told"), machines, tokens)
    without = model.token_ids("what", thinking=False)
    assert without[-6:] == [BEGIN, 253, 253, END, 253, 253]
    assert model.token_ids("what", point=capped(0)) == without
    assert answer.usage.prompt_tokens == len(without)
    assert answer.token_ids == tuple(tokens) and answer.usage.injected_tokens == 0


def test_a_cap_of_nothing_closes_at_once_what_the_template_opens(
    asked: Callable[..., Answer], machines: ModuleType
) -> None:
    # The model's own first tokens are not taken: what closes is.
    tokens = [50, 51, 52, 53, 40, 41, machines.END]
    answer = asked("opened", tokens, point=capped(0))
    assert answer.token_ids == (*machines.CLOSE, 40, 41, machines.END)
    assert answer.usage.thinking_tokens == 0
    assert answer.usage.injected_tokens == len(machines.CLOSE)


def test_a_cap_of_nothing_closes_at_once_what_the_model_opens(
    asked: Callable[..., Answer], machines: ModuleType
) -> None:
    answer = asked("told", [BEGIN, *[40] * 9, machines.END], point=capped(0), max_tokens=30)
    assert answer.token_ids[:5] == (BEGIN, *machines.CLOSE)
    assert answer.usage.thinking_tokens == 0


def test_a_thought_that_ends_below_its_cap_is_left_alone(
    asked: Callable[..., Answer], machines: ModuleType
) -> None:
    tokens = [BEGIN, 40, 41, END, 42, machines.END]
    for cap in (3, 4, None):
        answer = asked("told", tokens, point=capped(cap))
        assert answer.token_ids == tuple(tokens)
        assert (answer.usage.thinking_tokens, answer.usage.injected_tokens) == (2, 0)
        assert answer.finish_reason == "stop"


def test_rows_are_closed_each_in_its_own_time(
    thinker: Find, machines: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Bundle.open(thinker("opened"))
    model = Model(opened, machines.Machine(opened, [40]))
    rows = ([40, 41, END, 42, machines.END], [43] * 40)
    drawn = itertools.count()

    def choose(self: Any, logits: Any) -> Any:
        at = next(drawn)
        return np.array([row[min(at, len(row) - 1)] for row in rows])

    monkeypatch.setattr("tightrope.runtime.sampling.Sampler.__call__", choose)
    answer = model.generate("what", n=2, point=capped(4), max_tokens=12)
    assert answer.samples is not None
    first, second = answer.samples
    assert first.token_ids == (40, 41, END, 42, machines.END) and first.finish_reason == "stop"
    assert second.token_ids == (*[43] * 4, *machines.CLOSE, *[43] * 4)
    assert second.finish_reason == "length"
    assert answer.usage.thinking_tokens == 6
    assert answer.usage.injected_tokens == 4
    assert answer.usage.completion_tokens == 17


def test_what_is_forced_streams_as_it_is_answered(thinker: Find, machines: ModuleType) -> None:
    tokens = [BEGIN, *[40] * 20]
    stream = model_of(thinker("told"), machines, tokens).stream(
        "what", point=capped(3), max_tokens=14
    )
    pieces = list(stream)
    answer = pieces[-1].answer
    assert answer is not None
    assert "".join(piece.text for piece in pieces) == answer.text
    assert "\n</think>\n\n" in answer.text and answer.text.startswith("<think>")


def test_slots_that_fill_while_a_thought_is_closed_end_it(
    thinker: Find, machines: ModuleType
) -> None:
    model = model_of(thinker("opened"), machines, [40])
    slots = model.bundle.manifest.slots
    prompt = [*[30] * (slots - 4), BEGIN]  # room for three more that are read
    answer = model.generate(prompt, point=capped(2), max_tokens=100)
    assert answer.token_ids == (40, 40, *machines.CLOSE[:2])
    assert answer.finish_reason == "length"
    assert answer.usage.occupied_slots == slots


def test_max_tokens_ends_a_close_that_it_cuts(
    asked: Callable[..., Answer], machines: ModuleType
) -> None:
    answer = asked("opened", [40], point=capped(3), max_tokens=5)
    assert answer.token_ids == (40, 40, 40, *machines.CLOSE[:2])
    assert answer.finish_reason == "length"


@pytest.mark.parametrize("thinking", [None, True, False])
def test_the_template_is_told_by_every_way_of_asking(
    thinking: bool | None, thinker: Find, machines: ModuleType
) -> None:
    model = model_of(thinker("both"), machines, [40, machines.END])
    expected = len(model.token_ids("what", thinking=thinking))
    closed, open_ = (len(model.token_ids("what", thinking=told)) for told in (False, True))
    assert closed > open_ and expected == (closed if thinking is False else open_)
    asked: dict[str, Any] = {"thinking": thinking, "max_tokens": 4}
    assert model.generate("what", **asked).usage.prompt_tokens == expected
    assert model.stream("what", **asked).answer().usage.prompt_tokens == expected
    assert model.count("what", **asked).prompt_tokens == expected
    assert model.chat().ask("what", **asked).usage.prompt_tokens == expected
    assert model.chat().stream("what", **asked).answer().usage.prompt_tokens == expected


@pytest.mark.parametrize(
    ("template", "options", "words"),
    [
        ("told", {"thinking": True, "point": capped(0)}, "thinking_tokens is 0: set one of them"),
        ("opened", {"thinking": False}, "does not mention enable_thinking"),
        ("told", {"thinking": "on"}, "thinking is 'on'; accepted: True, False, or None"),
        ("told", {"thinking": 1}, "thinking is 1"),
    ],
)
def test_what_cannot_be_asked_of_a_thought_is_told(
    template: str, options: dict[str, Any], words: str, thinker: Find, machines: ModuleType
) -> None:
    model = model_of(thinker(template), machines, [40])
    for ask in (model.generate, model.stream, model.count, model.chat().ask):
        call: Any = ask
        with pytest.raises(InputError, match=words):
            call("what", **options)


def test_a_model_without_thoughts_takes_no_cap(bundle: Find, machines: ModuleType) -> None:
    model = model_of(bundle("llama"), machines, [40])
    for cap in (0, 5):
        with pytest.raises(InputError, match="no thoughts to limit"):
            model.generate("what", point=capped(cap))


@pytest.mark.parametrize("cap", [-1, 1.5, True, "3"])
def test_a_cap_is_a_whole_number(cap: Any) -> None:
    with pytest.raises(InputError, match="thinking_tokens is"):
        OperatingPoint(thinking_tokens=cap)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (" red ", "red"),
        ("<think> it is red </think> red", "red"),
        ("it is red </think> red", "red"),
        ("<think> it is red", None),
        ("<think> a </think> b <think> c", None),
        ("<think> </think>", ""),
    ],
)
def test_an_answer_follows_the_thought(text: str, said: str | None) -> None:
    assert after_thought(text) == said
