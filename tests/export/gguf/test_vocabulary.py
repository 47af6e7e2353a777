"""End tokens, special tokens and flags of GGUF files, as llama.cpp takes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("torch", reason="exporting needs torch")
pytest.importorskip("gguf", reason="exporting needs gguf")

from tightrope.errors import UnsupportedModel
from tightrope.export.checkpoint import open_checkpoint

Make = Callable[..., tuple[Any, Path]]
KEY = "tokenizer.ggml."
CHATML = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
LLAMA3 = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|eom_id|>"]
HARMONY = ["<|return|>", "<|call|>", "<|end|>", "<|start|>"]

ENDS: dict[str, tuple[list[str], list[str], dict[str, Any], set[str]]] = {
    "nothing is named": (["<x>"], [], {}, set()),
    "eos": (["<x>", "<y>"], [], {"eos_token_id": 1}, {"<y>"}),
    "eos that is a word": ([], ["<x>"], {"eos_token_id": 0}, {"<x>"}),
    "eot and eom beside it": (
        ["<a>", "<b>", "<c>"],
        [],
        {"eos_token_id": 0, "eot_token_id": 1, "eom_token_id": 2},
        {"<a>", "<b>", "<c>"},
    ),
    "ends of turns by their text": (CHATML, [], {"eos_token_id": 0}, {CHATML[0], CHATML[2]}),
    "a text that is said to be a word": ([], CHATML, {}, {CHATML[0], CHATML[2]}),
    "llama 3": (LLAMA3, [], {"eos_token_id": 1}, set(LLAMA3[1:])),
    "a part of an answer": (HARMONY, [], {"eos_token_id": 0}, {"<|return|>", "<|call|>"}),
    "no such part": (["<|end|>", "<s>"], [], {"eos_token_id": 1}, {"<|end|>", "<s>"}),
    "the end of a file": (
        ["<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<|fim_prefix|>"],
        [],
        {},
        {"<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"},
    ),
    "the end of a file, by id": (["<x>", "<y>"], [], {"fim_rep_token_id": 1}, {"<y>"}),
    "an id that stands for none": (["<x>"], [], {"eos_token_id": 2**32 - 1}, set()),
    "an end that is no reply": (
        ["</s>", "<|tool_response>"],
        [],
        {"eos_token_id": 1},
        {"<|tool_response>"},
    ),
}


@pytest.fixture
def tokens(gguf_files: ModuleType) -> Callable[..., dict[str, Any]]:
    """Keys of a byte-level vocabulary that begins with control tokens, then words."""

    def build(control: list[str], words: list[str], keys: dict[str, Any]) -> dict[str, Any]:
        tokenizer = gguf_files.byte_level([*control, *words], 295)
        found = gguf_files.metadata_of(tokenizer, normal=words)
        named = {f"{KEY}{name}": value for name, value in keys.items()}
        return {**found, f"{KEY}pre": "qwen2", f"{KEY}eos_token_id": None, **named}

    return build


@pytest.mark.parametrize("what", ENDS)
def test_an_answer_ends_where_llama_cpp_ends_it(
    make: Make, tokens: Callable[..., dict[str, Any]], what: str
) -> None:
    control, words, keys, wanted = ENDS[what]
    _, file = make("llama", metadata=tokens(control, words, keys))
    opened = open_checkpoint(file)
    found = opened.end_ids(None)
    texts = opened.tokenizer().convert_ids_to_tokens(sorted(found))
    assert set(texts) == wanted


def test_a_default_that_is_a_word_ends_nothing(
    make: Make, tokens: Callable[..., dict[str, Any]]
) -> None:
    """llama.cpp's default for byte-level vocabularies is token 11, whatever it is."""
    _, file = make("llama", metadata=tokens([], [], {}))
    assert open_checkpoint(file).end_ids(None) == frozenset()
    _, file = make("llama", metadata=tokens([f"<{i}>" for i in range(20)], [], {}))
    assert open_checkpoint(file).end_ids(None) == {11}


FLAGS: dict[str, tuple[dict[str, Any], list[int], list[int]]] = {
    "pre that adds a beginning": ({"pre": "llama-bpe"}, [0], []),
    "pre that adds none": ({"pre": "qwen2"}, [], []),
    "a flag against it": ({"pre": "llama-bpe", "add_bos_token": False}, [], []),
    "a flag for it": ({"pre": "qwen2", "add_bos_token": True}, [0], []),
    "an end too": ({"pre": "qwen2", "add_eos_token": True}, [], [1]),
    "both": ({"pre": "tekken", "add_eos_token": True}, [0], [1]),
}


@pytest.mark.parametrize("what", FLAGS)
def test_what_is_put_around_a_text(
    make: Make, tokens: Callable[..., dict[str, Any]], what: str
) -> None:
    keys, before, after = FLAGS[what]
    ids = {"bos_token_id": 0, "eos_token_id": 1}
    _, file = make("llama", metadata=tokens(["<s>", "<x>"], [], ids | keys))
    tokenizer = open_checkpoint(file).tokenizer().backend_tokenizer
    plain = tokenizer.encode("a b", add_special_tokens=False).ids
    assert tokenizer.encode("a b").ids == [*before, *plain, *after]
    both = tokenizer.encode("a", "b").ids
    assert both[: len(before)] == before and both[len(both) - len(after) :] == after


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a model unheard of": ({f"{KEY}model": "t5"}, "model 't5'; read here: gpt2, llama"),
    "no model": ({f"{KEY}model": None}, "tokenizer.ggml.model None"),
    "a pre unheard of": ({f"{KEY}pre": "spiral"}, "pre is 'spiral', a way to cut text that is not"),
    "no tokens": ({f"{KEY}tokens": None}, "has no tokenizer.ggml.tokens"),
    "no merges": ({f"{KEY}merges": None}, "has no tokenizer.ggml.merges"),
    "merges of nothing": ({f"{KEY}merges": ["x qqq"]}, "the merge 'x qqq', whose parts are not"),
    "merges that are one": ({f"{KEY}merges": ["xy"]}, "the merge 'xy'"),
    "too few types": ({f"{KEY}token_type": [1, 1]}, "280 tokens and 2 token types"),
    "more tokens than rows": (
        {f"{KEY}tokens": [f"{i}" for i in range(301)], f"{KEY}token_type": [1] * 301},
        "301 tokens and embeddings of 300",
    ),
    "tokens twice": (
        {f"{KEY}tokens": ["a", "b", "a"], f"{KEY}token_type": [1] * 3},
        "has tokens twice: a;",
    ),
    "an end outside": ({f"{KEY}eos_token_id": 280}, "eos_token_id 280, and 280 tokens"),
    "an end of words": ({f"{KEY}eos_token_id": "x"}, "eos_token_id 'x'; accepted: a token's id"),
    "a beginning of nothing": ({f"{KEY}add_bos_token": True}, "add_bos_token without bos_token_id"),
    "a prefix of another model": ({f"{KEY}add_space_prefix": True}, "add_space_prefix beside"),
    "a separator": ({f"{KEY}add_sep_token": True}, "has add_sep_token"),
    "a normaliser": ({f"{KEY}normalizer.lowercase": True}, "nothing here reads.*lowercase"),
    "pieces without scores": ({f"{KEY}model": "llama"}, "has no tokenizer.ggml.scores"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_vocabulary_that_cannot_be_stated_is_refused(make: Make, what: str) -> None:
    metadata, said = REFUSED[what]
    _, file = make("llama", metadata=metadata)
    with pytest.raises(UnsupportedModel, match=said) as raised:
        open_checkpoint(file)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("keys", "template"),
    [
        ({}, None),
        ({"tokenizer.chat_template": "x"}, "x"),
        ({"tokenizer.chat_template": ""}, None),
    ],
)
def test_the_template_is_the_files(make: Make, keys: dict[str, Any], template: str | None) -> None:
    _, file = make("llama", metadata=keys)
    opened = open_checkpoint(file)
    assert opened.chat_template(opened.tokenizer(), None) == template


def test_named_templates_are_handed_on(make: Make) -> None:
    keys = {
        "tokenizer.chat_template": "d",
        "tokenizer.chat_templates": ["tool_use"],
        "tokenizer.chat_template.tool_use": "t",
    }
    _, file = make("llama", metadata=keys)
    assert open_checkpoint(file).tokenizer().chat_template == {"default": "d", "tool_use": "t"}
