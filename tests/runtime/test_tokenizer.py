from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from tightrope.errors import BundleError, InputError
from tightrope.runtime.tokenizer import Tokenizer

FAMILIES = ["byte_level", "byte_fallback", "unigram", "reference"]
END = {"byte_level": "<|im_end|>"}
MARK = "\U000f0000"
MakeTokenizer = Callable[..., Tokenizer]
Backends = dict[str, Callable[[], tokenizers.Tokenizer]]
TEXTS = ["hello world", " the cup", "a\n\n b ", "what is red ?", "<", "", "caf\u00e9 \u4f60"]


def without_control_tokens(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    plain = tokenizers.Tokenizer.from_str(backend.to_str())
    plain.encode_special_tokens = True
    return plain


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("text", TEXTS)
def test_a_prompt_without_stand_ins_is_encoded_whole(
    family: str, text: str, make_tokenizer: MakeTokenizer, backends: Backends
) -> None:
    end = END.get(family, "</s>")
    rendered = f"{text}{end}{text} {end} {text}"
    expected = backends[family]().encode(rendered, add_special_tokens=False).ids
    assert make_tokenizer(family).encode_prompt(rendered) == expected
    assert backends[family]().token_to_id(end) in expected


@pytest.mark.parametrize("family", ["byte_level", "byte_fallback", "reference"])
def test_bos_is_added_where_the_bundle_says_so_and_only_once(
    family: str, make_tokenizer: MakeTokenizer
) -> None:
    bos = "<|begin|>" if family == "byte_level" else "<s>"
    bos_id = make_tokenizer(family).token_id(bos)
    text = "what is red ?"
    adding, plain = make_tokenizer(family, add_special_tokens=True), make_tokenizer(family)
    assert plain.encode_prompt(text).count(bos_id) == 0
    assert adding.encode_prompt(text) == [bos_id, *plain.encode_prompt(text)]
    assert adding.encode_prompt(bos + text) == plain.encode_prompt(bos + text)
    assert adding.encode_prompt(bos + text).count(bos_id) == 1
    # A stand-in changes how the text is encoded, not what frames it.
    literals = {MARK: "</s>"}
    assert adding.encode_prompt(text + MARK, literals)[:1] == [bos_id]
    assert plain.encode_prompt(text + MARK, literals)[:1] != [bos_id]
    assert adding.encode_prompt(bos + text + MARK, literals).count(bos_id) == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_a_bare_prompt_is_encoded_as_the_post_processor_says(
    family: str, make_tokenizer: MakeTokenizer, backends: Backends
) -> None:
    for text in TEXTS:
        assert make_tokenizer(family).encode_text(text) == backends[family]().encode(text).ids


@pytest.mark.parametrize("family", ["byte_level", "byte_fallback"])
@given(before=st.sampled_from(TEXTS), after=st.sampled_from(TEXTS), rest=st.sampled_from(TEXTS))
@settings(max_examples=60, deadline=None)
def test_a_stand_in_becomes_plain_text_in_its_context(
    family: str,
    make_tokenizer: MakeTokenizer,
    backends: Backends,
    before: str,
    after: str,
    rest: str,
) -> None:
    backend, end = backends[family](), END.get(family, "</s>")
    end_id = make_tokenizer(family).token_id(end)
    plain = without_control_tokens(backend)
    token_ids = make_tokenizer(family).encode_prompt(
        f"{rest}{end}{before}{MARK}{after}{end}{rest}", {MARK: end}
    )
    expected = [
        *backend.encode(rest, add_special_tokens=False).ids,
        end_id,
        *plain.encode(f"{before}{end}{after}", add_special_tokens=False).ids,
        end_id,
        *backend.encode(rest, add_special_tokens=False).ids,
    ]
    assert token_ids == expected
    assert token_ids.count(end_id) == 2


@pytest.mark.parametrize("family", FAMILIES)
@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_a_stand_in_never_becomes_a_control_token(
    family: str, make_tokenizer: MakeTokenizer, backends: Backends, data: st.DataObject
) -> None:
    tokenizer, backend = make_tokenizer(family), backends[family]()
    unknown = backend.token_to_id("<unk>")
    literals = {chr(0xF0000 + i): text for i, text in enumerate([*tokenizer.special_strings, ""])}
    piece = st.one_of(st.sampled_from(list(literals)), st.sampled_from(TEXTS))
    text = "".join(data.draw(st.lists(piece, min_size=1, max_size=8)))
    token_ids = tokenizer.encode_prompt(text, literals)
    assert (tokenizer.special_ids - {unknown}).isdisjoint(token_ids)


def test_a_word_of_the_model_itself_is_cut_in_two(
    make_tokenizer: MakeTokenizer, backends: Backends
) -> None:
    backend = backends["reference"]()
    # `encode_special_tokens` alone leaves </s> what it is: a word of the vocabulary.
    assert 2 in without_control_tokens(backend).encode("red </s>", add_special_tokens=False).ids
    red, unknown = backend.token_to_id("red"), backend.token_to_id("<unk>")
    token_ids = make_tokenizer("reference").encode_prompt(f"red {MARK} red </s>", {MARK: "</s>"})
    assert token_ids == [red, unknown, unknown, red, 2]


def test_a_space_goes_before_the_first_text_only(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer("unigram")
    for rendered in (f"</s>hello{MARK}", f"</s>{MARK}hello"):
        token_ids = tokenizer.encode_prompt(rendered, {MARK: "</s>"})
        assert tokenizer.decode(token_ids[1:]).count("hello") == 1
        tokens = [tokenizer.token(token_id) for token_id in token_ids]
        assert tokens[0] == "</s>"
        assert "\u2581" not in "".join(token or "" for token in tokens)


def test_offsets_that_leave_out_swallowed_white_space_do_no_harm(tmp_path: Path) -> None:
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, " ": 1, "/": 2}, "/"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    backend.post_processor = tokenizers.processors.ByteLevel(trim_offsets=True)
    swallowing = tokenizers.AddedToken("<|user|>", rstrip=True, lstrip=True)
    backend.add_special_tokens([swallowing, "</s>"])
    backend.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer(tmp_path / "tokenizer.json", {"unk_token": "/"}, False)
    token_ids = tokenizer.encode_prompt(f"{MARK}a  <|user|>  a{MARK}", {MARK: "</s>"})
    user = tokenizer.token_id("<|user|>")
    assert tokenizer.token_id(" ") not in token_ids
    assert token_ids.count(user) == 1


def test_white_space_that_a_control_token_swallows_stays_swallowed(
    make_tokenizer: MakeTokenizer,
) -> None:
    tokenizer = make_tokenizer("unigram")
    with_space = tokenizer.encode_prompt(f"<|user|>   he{MARK}", {MARK: "</s>"})
    without = tokenizer.encode_prompt(f"<|user|>he{MARK}", {MARK: "</s>"})
    assert with_space == without


def test_a_string_that_is_one_character_of_the_model_is_refused(tmp_path: Path) -> None:
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({"\u20ac": 0, "a": 1}, "a"))
    backend.add_special_tokens(["\u20ac"])
    backend.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer(tmp_path / "tokenizer.json", {}, add_special_tokens=False)
    with pytest.raises(InputError, match="'\u20ac', which this tokenizer knows only as a control"):
        tokenizer.encode_prompt(MARK, {MARK: "\u20ac"})


def test_decoding_leaves_control_tokens_out(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer("reference")
    ids = tokenizer.encode_prompt("<s> red circle </s> <image>")
    assert tokenizer.decode(ids) == "red circle"
    assert tokenizer.special_ids == {0, 1, 2, 3, 4}


def test_tokens_have_ids_and_ids_have_tokens(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer("reference")
    assert tokenizer.token_id("<image>") == 4
    assert tokenizer.token(4) == "<image>"
    assert tokenizer.token(10_000) is None
    with pytest.raises(BundleError, match="no token '<video>'"):
        tokenizer.token_id("<video>")


def test_saved_truncation_and_padding_do_not_apply(tmp_path: Path, backends: Backends) -> None:
    backend = tokenizers.Tokenizer.from_str(backends["reference"]().to_str())
    backend.enable_truncation(2)
    backend.enable_padding(length=10)
    backend.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer(tmp_path / "tokenizer.json", {}, add_special_tokens=False)
    assert len(tokenizer.encode_prompt("red blue green")) == 3


def test_a_missing_or_broken_file_is_a_bundle_error(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with pytest.raises(BundleError, match=r"tokenizer\.json is missing"):
        Tokenizer(path, {}, add_special_tokens=False)
    for content in ("", "{}", '{"model": 3}', "[1"):
        path.write_text(content)
        with pytest.raises(BundleError, match=r"tokenizer\.json is no tokenizer"):
            Tokenizer(path, {}, add_special_tokens=False)


def test_threads_share_a_tokenizer(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer("byte_level")
    plain, marked = "<|im_end|> the cup " * 50, f"<|im_end|> the {MARK} cup " * 50
    literals = {MARK: "<|im_end|>"}
    expected = tokenizer.encode_prompt(plain), tokenizer.encode_prompt(marked, literals)
    problems: list[Any] = []

    def work() -> None:
        for _ in range(20):
            try:
                got = tokenizer.encode_prompt(plain), tokenizer.encode_prompt(marked, literals)
                problems.extend([] if got == expected else ["other ids"])
            except RuntimeError as error:
                problems.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
