"""Tokens of GGUF files: as recorded of llama.cpp, and as the tokenizer that a file was made of."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("torch", reason="exporting needs torch")
pytest.importorskip("gguf", reason="exporting needs gguf")

import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

from tightrope.export.checkpoint import open_checkpoint
from tightrope.export.gguf.pretokenizers import PRETOKENIZERS

Make = Callable[..., tuple[Any, Path]]
RECORDED = json.loads(Path(__file__).with_name("llama_cpp.json").read_text(encoding="utf-8"))
FLAGS = {
    "llama, as it is": {},
    "llama, no prefix": {"add_space_prefix": False},
    "llama, no beginning, an end": {"add_bos_token": False, "add_eos_token": True},
}


def tokenizer_of(make: Make, metadata: dict[str, Any]) -> Any:
    rows = len(metadata["tokenizer.ggml.tokens"])
    own = dict.fromkeys(f"tokenizer.ggml.{key}" for key in ("eos_token_id", "merges", "pre"))
    _, file = make("llama", metadata=own | metadata, vocab_size=rows, num_hidden_layers=1)
    return open_checkpoint(file).tokenizer().backend_tokenizer


@pytest.mark.parametrize("name", RECORDED["digests"])
def test_tokens_are_those_that_llama_cpp_gave(
    gguf_files: ModuleType, make: Make, name: str
) -> None:
    """Recorded by benchmarks/record_llama_cpp.py."""
    if name in FLAGS:
        flags = {f"tokenizer.ggml.{key}": value for key, value in FLAGS[name].items()}
        metadata = RECORDED["vocabularies"]["llama"] | flags
    else:
        metadata = RECORDED["vocabularies"]["gpt2"] | {"tokenizer.ggml.pre": name}
    tokenizer = tokenizer_of(make, metadata)
    wrong = [
        text
        for text, wanted in zip(RECORDED["texts"], RECORDED["digests"][name], strict=True)
        if gguf_files.digest(tokenizer.encode(text).ids) != wanted
    ]
    assert wrong == []


def test_every_way_to_cut_is_recorded() -> None:
    recorded = {PRETOKENIZERS[name] for name in RECORDED["digests"] if name in PRETOKENIZERS}
    assert recorded == set(PRETOKENIZERS.values())


LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
PUBLISHED: dict[str, list[Any]] = {
    "llama-bpe": [pre_tokenizers.Split(Regex(LLAMA3), "isolated"), BYTES],
    "qwen2": [pre_tokenizers.Split(Regex(LLAMA3.replace("{1,3}", "")), "isolated"), BYTES],
    "gpt-2": [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)],
    "smollm": [
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    ],
}
"""How these tokenizers are published for the tokenizers library."""


@pytest.fixture(scope="module")
def pairs(gguf_files: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The tokenizer of a file, and the one that the file was made of, by `pre`."""
    made = {}
    for pre, steps in PUBLISHED.items():
        published = gguf_files.byte_level(["<|end|>", "<|user|>"], 700)
        published.pre_tokenizer = pre_tokenizers.Sequence(steps)
        if pre == "llama-bpe":
            published.model.ignore_merges = True
        keys = gguf_files.metadata_of(published) | {"tokenizer.ggml.pre": pre}
        model = gguf_files.model_of(gguf_files.config_of("llama", vocab_size=700))
        file = gguf_files.file_of(tmp_path_factory.mktemp(pre) / "m.gguf", model, keys)
        made[pre] = open_checkpoint(file).tokenizer().backend_tokenizer, published
    return made


TEXTS = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"]),
        st.sampled_from(list("aAbzZ019 '.,!?-\n\r\tsdlvtréñ你のж　\u00a0½")),
    ),
    max_size=60,
) | st.lists(
    st.sampled_from(["<|end|>", "<|user|>", "don't", " 12345", "\r\n", "   ", "Éa", "!?"])
).map("".join)


@pytest.mark.parametrize("pre", PUBLISHED)
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=TEXTS)
def test_tokens_are_those_of_the_tokenizer_that_the_file_was_made_of(
    pairs: dict[str, Any], pre: str, text: str
) -> None:
    read, published = pairs[pre]
    text = text.replace("ſ", "s")  # (?i) takes the long s for an s, llama.cpp does not
    assert read.encode(text).ids == published.encode(text).ids
    assert read.decode(read.encode(text).ids) == published.decode(published.encode(text).ids)


def test_pieces_are_told_back_without_their_prefix(make: Make) -> None:
    for flags, told in (({}, "a b  c"), ({"tokenizer.ggml.add_space_prefix": False}, " a b  c")):
        tokenizer = tokenizer_of(make, RECORDED["vocabularies"]["llama"] | flags)
        ids = tokenizer.encode(told, add_special_tokens=False).ids
        assert tokenizer.decode(ids) == told


def test_bytes_stand_in_for_characters_that_are_no_pieces(make: Make) -> None:
    tokenizer = tokenizer_of(make, RECORDED["vocabularies"]["llama"])
    encoded = tokenizer.encode("🦙", add_special_tokens=False)
    assert encoded.tokens == ["▁", "<0xF0>", "<0x9F>", "<0xA6>", "<0x99>"]
    assert tokenizer.decode(encoded.ids) == "🦙"


def test_user_defined_tokens_are_found_in_any_text(make: Make) -> None:
    tokenizer = tokenizer_of(make, RECORDED["vocabularies"]["llama"])
    added = {
        token.content: token.special for token in tokenizer.get_added_tokens_decoder().values()
    }
    assert added == {"<unk>": True, "<s>": True, "</s>": True, "<|u|>": False, "~~": False}
    assert "~~" in tokenizer.encode("a~~b").tokens


def test_a_tokenizer_is_whole_in_its_own_format(make: Make) -> None:
    tokenizer = tokenizer_of(
        make, RECORDED["vocabularies"]["gpt2"] | {"tokenizer.ggml.pre": "tekken"}
    )
    again = tokenizers.Tokenizer.from_str(tokenizer.to_str())
    for text in RECORDED["texts"]:
        assert again.encode(text).ids == tokenizer.encode(text).ids
