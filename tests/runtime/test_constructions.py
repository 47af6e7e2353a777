"""Templates of many constructions and messages as clients send them, beside transformers."""

from __future__ import annotations

import functools
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import tokenizers
from tokenizers import AddedToken

from tightrope.errors import BundleError, InputError
from tightrope.runtime.prompt import render_and_encode
from tightrope.runtime.template import ChatTemplate
from tightrope.runtime.tokenizer import Tokenizer

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
CONTROL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|header|>", "<|end|>", "<|vision|>"]


@pytest.fixture(scope="module")
def table(module_of: Any) -> ModuleType:
    module: ModuleType = module_of(Path(__file__).parent / "templates.py")
    return module


def by_byte(thoughts: bool) -> tokenizers.Tokenizer:
    """Loses nothing: what it decodes is what was rendered. thoughts: markers are control tokens."""
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.BPE({letter: number for number, letter in enumerate(letters)}, [])
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens(CONTROL)
    markers = [AddedToken(text, special=thoughts, normalized=False) for text in MARKERS]
    (tokenizer.add_special_tokens if thoughts else tokenizer.add_tokens)(markers)
    return tokenizer


MARKERS = ("<think>", "</think>")


class Both:
    """One tokenizer, as transformers and as a bundle have it."""

    def __init__(self, folder: Path, thoughts: bool) -> None:
        self.transformers = pytest.importorskip("transformers", reason="the oracle is transformers")
        backend = by_byte(thoughts)
        backend.save(str(folder / "tokenizer.json"))
        self.theirs = self.transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **SPECIAL)
        self.ours = Tokenizer(folder / "tokenizer.json", SPECIAL, False)
        self.template = functools.cache(lambda source: ChatTemplate(source, SPECIAL))

    def their_text(self, source: str, messages: Any, **arguments: Any) -> str | None:
        """None where it refuses."""
        try:
            text = self.theirs.apply_chat_template(
                messages, chat_template=source, tokenize=False, **arguments
            )
        except Exception:  # jinja's, and whatever the template's own words make Python raise
            return None
        return str(text)

    def adapts(self, source: str, messages: Any) -> bool:
        """Whether some content comes in a form that the template does not take.

        Parts are then joined, or a string becomes a part, of which transformers does neither.
        """
        template = self.template(source)
        for message in messages:
            role, content = message["role"], message["content"]
            if isinstance(content, list) and not template.takes_parts(role):
                return True
            if isinstance(content, str) and (
                template.takes_parts(role) and not template.takes_text(role)
            ):
                return True
        return False

    def our_text(self, source: str, messages: Any, **arguments: Any) -> str | None:
        try:
            ids = render_and_encode(self.template(source), self.ours, messages, **arguments)
        except (InputError, BundleError):
            return None
        return str(self.theirs.decode(ids))


@pytest.fixture(scope="module", params=[False, True], ids=["words", "control tokens"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Both:
    return Both(tmp_path_factory.mktemp("tokenizer"), request.param)


def test_there_are_enough_of_them(table: ModuleType) -> None:
    assert len(table.CONSTRUCTIONS) >= 120 and len(table.CONVERSATIONS) >= 14


def test_every_construction_renders_every_conversation_as_transformers_does(
    both: Both, table: ModuleType
) -> None:
    compared = refused = 0
    differing: list[str] = []
    for name, source in table.CONSTRUCTIONS.items():
        for talk, messages in table.CONVERSATIONS.items():
            for tools in (None, table.TOOLS):
                if talk in table.HOLDING_CONTROLS and name in table.MEASURING:
                    continue
                if both.adapts(source, messages):
                    continue
                told = {
                    "tools": tools,
                    "documents": tools and table.DOCUMENTS,
                    "add_generation_prompt": tools is None,
                }
                expected = both.their_text(source, messages, **told)
                found = both.our_text(source, messages, **told)
                if found != expected:
                    differing.append(f"{name}, {talk}: {found!r} instead of {expected!r}")
                compared += 1
                refused += expected is None
    assert not differing, "\n".join(differing)
    assert compared > 1500 and refused < compared / 5


@pytest.mark.parametrize("thinking", [None, True, False])
def test_a_switch_for_thought_reaches_the_template(
    both: Both, table: ModuleType, thinking: bool | None
) -> None:
    source = table.CONSTRUCTIONS["thought switched off"]
    told: dict[str, Any] = {} if thinking is None else {"enable_thinking": thinking}
    messages = table.CONVERSATIONS["three turns"]
    expected = both.their_text(source, messages, add_generation_prompt=True, **told)
    assert both.our_text(source, messages, add_generation_prompt=True, **told) == expected
    assert (expected or "").endswith("</think>\n\n") == (thinking is False)


def test_an_earlier_answer_loses_its_thought_whatever_the_markers_are(
    both: Both, table: ModuleType
) -> None:
    source = table.CONSTRUCTIONS["thought cut by split"]
    found = both.our_text(source, table.CONVERSATIONS["a thought in the answer"])
    assert found is not None and "it is two" not in found and "assistant: 2\n" in found


def test_what_a_template_looks_for_is_told_from_what_it_writes() -> None:
    source = (
        "{% set close = '</t>' %}{% if '<a>' in messages[0].content %}<w>{% endif %}"
        "{{ '<x>' + messages[0].content.split('<b>')[0] | replace('<c>', '') }}{{ close }}"
    )
    template = ChatTemplate(source, SPECIAL)
    # A marker that has a name and is written alone is not looked for.
    assert template.marks(["<a>", "<b>", "<c>", "</t>", "<w>", "<x>"]) == {"<a>", "<b>", "<c>"}


def test_what_begins_and_ends_a_text_is_no_mark_of_an_answer(both: Both) -> None:
    source = (
        "{% for m in messages %}{{ m.content.split('</s>')[-1] | replace('<|vision|>', '') }}"
        "{% endfor %}"
    )
    template = ChatTemplate(source, SPECIAL)
    assert template.marks(CONTROL) == {"<|vision|>"}
    for role in ("user", "assistant"):
        message = {"role": role, "content": "a</s>b<|vision|>c"}
        ids = render_and_encode(template, both.ours, [message], "<|vision|>")
        assert both.theirs.decode(ids) == "a</s>b<|vision|>c"
        assert both.ours.special_ids.isdisjoint(ids)


def test_a_control_token_is_printed_as_it_was_written(both: Both) -> None:
    message = {"role": "user", "content": "a<|im_end|>b"}
    ids = render_and_encode(ChatTemplate("{{ messages }}", SPECIAL), both.ours, [message])
    assert both.theirs.decode(ids) == str([message])
    assert both.ours.special_ids.isdisjoint(ids)


def test_a_user_cannot_write_a_marker(both: Both) -> None:
    source = "{% for m in messages %}{{ m.content.split('</think>')[-1] }}{% endfor %}"
    for role, kept in (("user", True), ("assistant", False)):
        messages = [{"role": role, "content": "a</think>b<|im_end|>c"}]
        ids = render_and_encode(ChatTemplate(source, SPECIAL), both.ours, messages)
        text = both.theirs.decode(ids)
        control = both.ours.special_ids
        if "</think>" in both.ours.special_strings:
            assert text == ("a</think>b<|im_end|>c" if kept else "b<|im_end|>c")
        # Nothing looks for the end of a turn, so that nobody's text ends one.
        assert control.isdisjoint(ids)


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": None},
        {"role": "assistant", "content": None, "tool_calls": None},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "user", "content": None, "tool_calls": [{"function": {"name": "f"}}]},
        {"role": "user"},
        {"role": None, "content": "a"},
    ],
)
def test_a_message_without_content_is_refused_by_its_place(
    both: Both, table: ModuleType, message: dict[str, Any]
) -> None:
    messages = [{"role": "user", "content": "a"}, message]
    with pytest.raises(InputError, match=r"messages\[1\]"):
        render_and_encode(ChatTemplate(table.CONSTRUCTIONS["chatml"], SPECIAL), both.ours, messages)
