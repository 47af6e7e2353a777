from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from tightrope.errors import InputError
from tightrope.runtime import detokenizer
from tightrope.runtime.detokenizer import StreamDecoder
from tightrope.runtime.tokenizer import Tokenizer

FAMILIES = ["byte_level", "byte_fallback", "unigram", "reference"]
MakeTokenizer = Callable[..., Tokenizer]
Backends = dict[str, Callable[[], tokenizers.Tokenizer]]


def first_completed(text: str, stop: list[str]) -> str:
    """The text before the first stop string to be completed, character by character."""
    for end in range(len(text) + 1):
        matching = [s for s in stop if text[:end].endswith(s)]
        if matching:
            return text[: end - max(map(len, matching))]
    return text


def pieces(decoder: StreamDecoder, token_ids: list[int]) -> list[str]:
    return [*(decoder.push(token_id) for token_id in token_ids), decoder.finish()]


@pytest.mark.parametrize("family", FAMILIES)
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_the_pieces_are_the_decoded_text(
    family: str, make_tokenizer: MakeTokenizer, backends: Backends, data: st.DataObject
) -> None:
    backend = backends[family]()
    # Past the end too: models have more rows than their tokenizer has tokens.
    token = st.integers(0, backend.get_vocab_size() + 3)
    token_ids = data.draw(st.lists(token, max_size=60))
    streamed = pieces(StreamDecoder(make_tokenizer(family)), token_ids)
    assert "".join(streamed) == backend.decode(token_ids, skip_special_tokens=True)


@pytest.mark.parametrize("family", ["byte_level", "byte_fallback"])
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_bytes_that_are_no_utf8_decode_as_all_at_once(
    family: str, make_tokenizer: MakeTokenizer, backends: Backends, data: st.DataObject
) -> None:
    backend = backends[family]()
    if family == "byte_fallback":
        letters = [f"<0x{byte:02X}>" for byte in range(256)]
    else:
        letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    letter_ids = [make_tokenizer(family).token_id(letter) for letter in letters]
    # Runs of any bytes, in which now and then an ordinary token stands.
    token = st.one_of(st.sampled_from(letter_ids), st.sampled_from(letter_ids), st.just(300))
    token_ids = data.draw(st.lists(token, min_size=10, max_size=80))
    streamed = pieces(StreamDecoder(make_tokenizer(family)), token_ids)
    assert "".join(streamed) == backend.decode(token_ids)


@pytest.mark.parametrize("family", FAMILIES)
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_the_text_is_cut_before_the_first_stop_string(
    family: str, make_tokenizer: MakeTokenizer, backends: Backends, data: st.DataObject
) -> None:
    backend = backends[family]()
    token = st.integers(0, backend.get_vocab_size() - 1)
    token_ids = data.draw(st.lists(token, min_size=1, max_size=30))
    text = backend.decode(token_ids, skip_special_tokens=True)
    bounds = st.tuples(st.integers(0, len(text)), st.integers(1, 12))
    found = data.draw(st.lists(bounds, max_size=2))
    stop = [text[start : start + length] for start, length in found if text[start:]]
    stop += data.draw(st.lists(st.text("abe \u2581", min_size=1, max_size=3), max_size=2))
    decoder = StreamDecoder(make_tokenizer(family), stop)
    streamed = pieces(decoder, token_ids)
    assert "".join(streamed) == first_completed(text, stop)
    assert (decoder.stopped_by is not None) == any(s in text for s in stop)


def test_a_character_of_several_tokens_comes_whole(
    make_tokenizer: MakeTokenizer, backends: Backends
) -> None:
    token_ids = backends["byte_level"]().encode("a\u00df\U0001f9ff!", add_special_tokens=False).ids
    assert len(token_ids) > 4
    decoder = StreamDecoder(make_tokenizer("byte_level"))
    shown = [decoder.push(token_id) for token_id in token_ids]
    assert "\ufffd" not in "".join(shown)
    assert "".join(shown) == "a\u00df\U0001f9ff!"


def test_what_may_become_a_stop_string_is_held_back(
    make_tokenizer: MakeTokenizer,
) -> None:
    tokenizer = make_tokenizer("byte_level")
    decoder = StreamDecoder(tokenizer, ["\n\nUser"])
    letters = [tokenizer.token_id(letter) for letter in "ok\u010a\u010aU"]
    assert [decoder.push(letter) for letter in letters] == ["o", "k", "", "", ""]
    assert decoder.push(tokenizer.token_id("x")) == "\n\nUx"
    assert decoder.stopped_by is None


def test_the_end_releases_what_was_held(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer("byte_level")
    decoder = StreamDecoder(tokenizer, ["##"])
    assert decoder.push(tokenizer.token_id("#")) == ""
    assert decoder.finish() == "#"
    assert decoder.stopped_by is None
    assert decoder.finish() == ""


def test_nothing_follows_a_stop_string(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer("byte_level")
    decoder = StreamDecoder(tokenizer, ["b"])
    shown = [decoder.push(tokenizer.token_id(letter)) for letter in "abc"]
    assert [*shown, decoder.finish()] == ["a", "", "", ""]
    assert decoder.stopped_by == "b"


def test_a_control_token_may_be_a_stop_string_or_a_part_of_one(
    make_tokenizer: MakeTokenizer,
) -> None:
    tokenizer = make_tokenizer("byte_level")
    end = tokenizer.token_id("<|im_end|>")
    letter = tokenizer.token_id

    def streamed(stop: list[str], token_ids: list[int]) -> tuple[str, str | None]:
        decoder = StreamDecoder(tokenizer, stop)
        return "".join(pieces(decoder, token_ids)), decoder.stopped_by

    said = [letter("a"), end, letter("b"), letter("c")]
    assert streamed(["<|im_end|>"], said) == ("a", "<|im_end|>")
    assert streamed(["a<|im_end|>"], said) == ("", "a<|im_end|>")
    assert streamed(["<|im_end|>b"], said) == ("a", "<|im_end|>b")
    assert streamed(["c", "<|im_end|>x"], said) == ("ab", "c")
    assert streamed(["<|im_start|>"], said) == ("abc", None)
    assert streamed(["<|im_end|><|im_end|>"], [end, end]) == ("", "<|im_end|><|im_end|>")


@pytest.mark.parametrize("family", ["byte_level", "byte_fallback", "unigram"])
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_control_tokens_as_stop_strings_stop_where_transformers_does(
    family: str, make_tokenizer: MakeTokenizer, backends: Backends, data: st.DataObject
) -> None:
    transformers = pytest.importorskip("transformers", reason="the oracle is its stop criterion")
    torch = pytest.importorskip("torch", reason="the oracle is its stop criterion")
    tokenizer = make_tokenizer(family)
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=backends[family]())
    control = st.sampled_from(sorted(tokenizer.special_ids))
    token_ids = data.draw(st.lists(st.one_of(st.integers(0, 299), control), max_size=12))
    token_ids = [token for token in token_ids if token < backends[family]().get_vocab_size()]
    stop = data.draw(st.lists(control, min_size=1, max_size=2).map(tuple))
    text = "".join(tokenizer.token(token) or "" for token in stop)
    criterion = transformers.StopStringCriteria(theirs, text)
    decoder = StreamDecoder(tokenizer, [text])
    for n, token in enumerate(token_ids, 1):
        decoder.push(token)
        expected = bool(criterion(torch.tensor([token_ids[:n]]), None)[0])
        assert bool(decoder.stopped_by) == expected
        if expected:
            break


def test_words_without_a_decoder_are_joined_by_spaces(
    make_tokenizer: MakeTokenizer,
) -> None:
    tokenizer = make_tokenizer("reference")
    ids = [tokenizer.token_id(token) for token in ("<s>", "red", "</s>", "circle", "?")]
    assert pieces(StreamDecoder(tokenizer), ids) == [
        "", "red", "", " circle", " ?", "",
    ]  # fmt: skip


@pytest.mark.parametrize("stop", ["text", [""], ["a", ""], [3]])
def test_stop_strings_of_another_shape_are_refused(
    make_tokenizer: MakeTokenizer, stop: Any
) -> None:
    with pytest.raises(InputError, match="stop is"):
        StreamDecoder(make_tokenizer("reference"), stop)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_token_costs_the_same_however_long_the_text_is(
    family: str, make_tokenizer: MakeTokenizer, backends: Backends
) -> None:
    tokenizer = make_tokenizer(family)
    decoded: list[int] = []

    class Counting:
        special_ids = tokenizer.special_ids
        special_strings = tokenizer.special_strings
        token = staticmethod(tokenizer.token)

        @staticmethod
        def decode(token_ids: list[int]) -> str:
            decoded.append(len(token_ids))
            return tokenizer.decode(token_ids)

    decoder = StreamDecoder(Counting(), ["never said"])  # type: ignore[arg-type]
    first = 259 if family == "byte_fallback" else 5
    # At the end bytes that continue a character but never began one, where there are bytes.
    continuing = backends[family]().token_to_id("\u0122") or first
    for token_id in [*range(first, first + 20)] * 20 + [continuing] * 500:
        decoder.push(token_id)
    assert max(decoded) <= detokenizer._LONGEST_WINDOW + 1
    assert sys.getsizeof(decoder._held) < 1000
