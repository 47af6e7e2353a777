"""Where prompts may be cut, over templates and tokenizers as they are published."""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightrope.bundle import MANIFEST
from tightrope.errors import TightropeError
from tightrope.runtime import language
from tightrope.runtime.marks import Mark, marks_of
from tightrope.runtime.model import Model, load
from tightrope.runtime.prompt import render_and_encode
from tightrope.runtime.template import ChatTemplate
from tightrope.runtime.tokenizer import Tokenizer

MakeTokenizer = Callable[..., Tokenizer]
Message = dict[str, Any]
SYSTEM, USER, ASSISTANT = "system", "user", "assistant"
NAMES = {"bos_token": "<|begin|>", "eos_token": "<|im_end|>"}
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def said(*turns: tuple[str, str]) -> list[Message]:
    return [{"role": role, "content": content} for role, content in turns]


def encoder(
    source: str, tokenizer: Tokenizer
) -> Callable[[Sequence[Mapping[str, Any]]], list[int]]:
    return functools.partial(render_and_encode, ChatTemplate(source, NAMES), tokenizer)


def marked(encode: Any, messages: list[Message]) -> tuple[list[int], tuple[Mark, ...]]:
    ids = encode(messages)
    return ids, marks_of(messages, ids, None, encode)


@pytest.fixture
def tokenizer(make_tokenizer: MakeTokenizer) -> Tokenizer:
    return make_tokenizer("byte_level")


@pytest.fixture(scope="module")
def constructions(module_of: Callable[[Path], ModuleType]) -> dict[str, str]:
    templates = module_of(Path(__file__).parent / "templates.py").CONSTRUCTIONS
    return templates  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("turns", "before"),
    [
        ([(USER, "why ?")], []),
        ([(SYSTEM, "be brief"), (USER, "why ?")], ["<|im_start|>system\nbe brief<|im_end|>\n"]),
        (
            [(SYSTEM, "a"), ("developer", "b"), (USER, "q"), (ASSISTANT, "r"), (USER, "why ?")],
            [
                "<|im_start|>system\na<|im_end|>\n<|im_start|>developer\nb<|im_end|>\n",
                "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\nr<|im_end|>\n",
            ],
        ),
        (
            [(USER, "q"), (ASSISTANT, "r"), (USER, "why ?"), (ASSISTANT, "well")],
            ["<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\nr<|im_end|>\n"],
        ),
        ([(SYSTEM, "nobody asks")], []),
    ],
)
def test_marks_stand_behind_the_system_and_before_the_last_question(
    turns: list[tuple[str, str]], before: list[str], tokenizer: Tokenizer
) -> None:
    encode = encoder(CHATML, tokenizer)
    ids, marks = marked(encode, said(*turns))
    texts, whole = [], ""
    for part in before:
        whole += part
        texts.append(f"{whole}<|im_start|>user\n")
    assert [ids[: mark.num_ids] for mark in marks] == [
        tokenizer.encode_prompt(text, {}) for text in texts
    ]
    assert all(mark.num_images == 0 for mark in marks)


def test_a_question_that_begins_as_a_probe_does_moves_no_mark(tokenizer: Tokenizer) -> None:
    encode = encoder(CHATML, tokenizer)
    found = {
        marked(encode, said((SYSTEM, "be brief"), (USER, question)))[1]
        for question in ("a", "b", "ab", " why", "", "be brief", "你", "<|im_end|>")
    }
    assert len(found) == 1


def test_a_template_that_refuses_what_it_is_asked_has_no_marks(tokenizer: Tokenizer) -> None:
    refuses = CHATML + (
        "{% if messages[-1]['content'] | length < 3 %}{{ raise_exception('more') }}{% endif %}"
    )
    _, marks = marked(encoder(refuses, tokenizer), said((SYSTEM, "s"), (USER, "what is it ?")))
    assert marks == ()


TEXT = st.text(alphabet="ab \n<|>你é", max_size=12)
KINDS = st.sampled_from(("byte_level", "byte_fallback", "unigram"))
ONE_BY_ONE = ("chatml", "chatml with subscripts", "headers", "roles by a dict", "capitalised")
"""Templates that write a turn without looking at those that follow."""


def drawn(data: st.DataObject) -> list[tuple[str, str]]:
    turns = [(SYSTEM, data.draw(TEXT))] if data.draw(st.booleans()) else []
    for _ in range(data.draw(st.integers(0, 2))):
        turns += [(USER, data.draw(TEXT)), (ASSISTANT, data.draw(TEXT))]
    return turns


@settings(deadline=None, max_examples=60)
@given(data=st.data(), kind=KINDS, name=st.sampled_from(ONE_BY_ONE))
def test_what_stands_before_a_mark_is_the_same_whatever_is_asked(
    data: st.DataObject,
    kind: str,
    name: str,
    constructions: dict[str, str],
    make_tokenizer: MakeTokenizer,
) -> None:
    turns, encode = drawn(data), encoder(constructions[name], make_tokenizer(kind))
    first, marks = marked(encode, said(*turns, (USER, data.draw(TEXT))))
    other, again = marked(encode, said(*turns, (USER, data.draw(TEXT))))
    for one, two in zip(marks, again, strict=False):
        shared = min(one.num_ids, two.num_ids)
        assert first[:shared] == other[:shared]


@settings(deadline=None, max_examples=100)
@given(data=st.data(), kind=KINDS)
def test_marks_ascend_and_leave_something_to_be_read(
    data: st.DataObject,
    kind: str,
    constructions: dict[str, str],
    make_tokenizer: MakeTokenizer,
) -> None:
    source = constructions[data.draw(st.sampled_from(sorted(constructions)))]
    messages = said(*drawn(data), (USER, data.draw(TEXT)))
    try:
        ids, marks = marked(encoder(source, make_tokenizer(kind)), messages)
    except TightropeError:
        return  # the template takes no such conversation
    ends = [mark.num_ids for mark in marks]
    assert len(ends) <= 2 and ends == sorted(set(ends))
    assert all(0 < end < len(ids) for end in ends)


def test_a_prompt_is_rendered_once_however_often_it_is_asked_about(
    loaded: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = loaded("llama")
    model = Model(real.bundle, real.backend)
    rendered: list[str] = []

    def watched(*arguments: Any, **named: Any) -> list[int]:
        rendered.append(repr(arguments[2]))
        return render_and_encode(*arguments, **named)

    monkeypatch.setattr(language, "render_and_encode", watched)
    messages = said((SYSTEM, "be brief"), (USER, "why ?"))
    first = model.generate(messages, max_tokens=2)
    model.count(messages)
    again = model.generate(messages, max_tokens=2)
    assert again.token_ids == first.token_ids
    # The prompt, and two probes behind the system's message.
    assert len(rendered) == len(set(rendered)) == 3
    messages[0]["content"] = "be kind"
    model.count(messages)
    assert len(rendered) == len(set(rendered)) == 6


def test_a_template_that_writes_the_time_is_asked_each_time(
    bundle: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = tmp_path / "dated.bundle"
    shutil.copytree(bundle("llama"), folder)
    template, manifest = folder / "chat_template.jinja", folder / MANIFEST
    content = b"{{ strftime_now('%f') }}" + template.read_bytes()
    template.write_bytes(content)
    values = json.loads(manifest.read_text(encoding="utf-8"))
    digest = hashlib.sha256(content).hexdigest()
    values["files"][template.name] = {"bytes": len(content), "sha256": digest}
    manifest.write_text(json.dumps(values), encoding="utf-8")
    model = load(folder, "onnxruntime", 1, live=False)
    messages = said((USER, "what time is it ?"))
    assert len({tuple(model.token_ids(messages)) for _ in range(5)}) == 5
