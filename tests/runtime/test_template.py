from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from tightrope.errors import BundleError, InputError
from tightrope.runtime import sandbox
from tightrope.runtime.template import ChatTemplate, takes_parts

LLAMA = """{%- for message in messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Conversation roles must alternate user/assistant') }}
    {%- endif %}
    {%- if loop.index0 == 0 %}{{ bos_token }}{% endif %}
    {%- if message['role'] == 'user' %}
        {{- '[INST] ' + message['content'].strip() + ' [/INST]' }}
    {%- else %}
        {{- ' ' + message['content'] | trim + ' ' + eos_token }}
    {%- endif %}
{%- endfor %}"""

QWEN2_VL = (
    "{% set image_count = namespace(value=0) %}{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\n"
    "You are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n{% else %}"
    "{% for content in message['content'] %}{% if content['type'] == 'image' or 'image' in content"
    " or 'image_url' in content %}{% set image_count.value = image_count.value + 1 %}"
    "{% if add_vision_id %}Picture {{ image_count.value }}: {% endif %}"
    "<|vision|><|image_pad|><|vision|>{% elif 'text' in content %}{{ content['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

PARTS_ONLY = (
    "{% for message in messages %}{{ message['role'] | capitalize }}:"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %} {{ line['text'] }}"
    "{% elif line['type'] == 'image' %}<|image_pad|>{% endif %}{% endfor %}\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)

EVERY_EXTENSION = """
{%- set seen = namespace(n=0, self='me') %}
{% for message in messages %}
    {% if message.role == 'system' %}{% continue %}{% endif %}
    {% if message.role == 'assistant' %}
        {% generation %}
        {% set seen.n = seen.n + 1 %}
        {{ message | tojson }}{{ message | tojson(indent=2) }}
        {% endgeneration %}
    {% else %}
        {{ message.content }} <&> {{ dict(a=1, b='é') | tojson(sort_keys=True) }}
    {% endif %}
    {% if loop.index > 5 %}{% break %}{% endif %}
{% endfor %}
{{ seen.n }} {{ seen.self }} {{ tools }} {{ documents }} {{ missing }} {{ eos_token }}
"""

CHAT = [
    {"role": "user", "content": "  hello <b>\u00e9 'quoted'\n"},
    {"role": "assistant", "content": "hi \u4f60 "},
    {"role": "user", "content": "bye"},
]
PARTS = [
    {
        "role": "user",
        "content": [{"type": "image"}, {"type": "text", "text": "what?"}, {"type": "image"}],
    }
]


@pytest.fixture
def reference_template(reference_folder: Path) -> str:
    return (reference_folder / "chat_template.jinja").read_text()


def hugging_face(source: str, messages: list[dict[str, Any]], **arguments: Any) -> str:
    transformers = pytest.importorskip(
        "transformers", reason="the oracle is Hugging Face's own code"
    )
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(tokenizers.models.BPE()),
        chat_template=source,
        bos_token="<s>",
        eos_token="</s>",
    )
    rendered: str = tokenizer.apply_chat_template(messages, tokenize=False, **arguments)
    return rendered


@pytest.mark.parametrize("add_generation_prompt", [True, False])
@pytest.mark.parametrize(
    ("source", "messages"),
    [
        (LLAMA, CHAT),
        (QWEN2_VL, CHAT),
        (QWEN2_VL, PARTS),
        (PARTS_ONLY, PARTS),
        (EVERY_EXTENSION, [{"role": "system", "content": "s"}, *CHAT]),
    ],
)
def test_a_template_renders_as_in_transformers(
    source: str, messages: list[dict[str, Any]], add_generation_prompt: bool
) -> None:
    ours = ChatTemplate(source, {"bos_token": "<s>", "eos_token": "</s>"})
    expected = hugging_face(source, messages, add_generation_prompt=add_generation_prompt)
    assert ours.render(messages, add_generation_prompt) == expected


def test_the_reference_template_renders_as_in_transformers(reference_template: str) -> None:
    ours = ChatTemplate(reference_template, {})
    for messages in (CHAT, PARTS):
        expected = hugging_face(reference_template, messages, add_generation_prompt=True)
        assert ours.render(messages) == expected


def test_arguments_reach_the_template() -> None:
    rendered = ChatTemplate(QWEN2_VL, {}).render(PARTS, add_vision_id=True)
    assert rendered == hugging_face(QWEN2_VL, PARTS, add_generation_prompt=True, add_vision_id=True)
    assert "Picture 2: " in rendered


def test_the_clock_is_the_machines() -> None:
    rendered = ChatTemplate("{{ strftime_now('%Y') }}", {}).render([])
    assert abs(int(rendered) - datetime.now().year) <= 1


def test_a_refusal_is_an_input_error_in_the_templates_words() -> None:
    with pytest.raises(InputError, match="roles must alternate user/assistant"):
        ChatTemplate(LLAMA, {}).render([{"role": "assistant", "content": "hi"}])


def test_a_template_with_broken_syntax_is_a_bundle_error() -> None:
    for source in (
        "{% if 1 %}" * 10_000 + "{% endif %}" * 10_000,
        "{{ " + "(" * 10_000 + "1" + ")" * 10_000 + " }}",
        "{{ " + "-" * 10_000 + "1 }}",
        *(
            "{% for %}",
            "{{ messages",
            "{% endif %}",
            "{{ 1 | no_such_filter }}",
            "{{ 1 is none_such }}",
        ),
        *(
            "{% break %}",
            "{% unknown %}",
            "{% generation %}",
            "{{ '\\ud8' }}",
            "{% set a.b.c = 1 %}",
        ),
        *(
            "{" * 9,
            "{{ " + "(" * 99_999,
            "{{ " + "-" * 99_999 + "1 }}",
            "{{ " + "1+" * 9999 + "1 }}",
        ),
        "{% for a in [] %}" * 30 + "{% endfor %}" * 30,
        "{{ " + "[" * 300 + "]" * 300 + " }}",
    ):
        with pytest.raises(BundleError, match=r"chat_template\.jinja is not a valid template"):
            ChatTemplate(source, {})


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ raise_exception.__globals__['__builtins__'] }}",
        "{{ dict.__class__.__init__.__globals__ }}",
        "{{ messages.append(1) }}",
        "{% set n = namespace(_x=1) %}",
        "{% set n = namespace() %}{% set n.__class__ = 1 %}",
        "{{ '{0.__class__.__mro__}'.format('') }}",
    ],
)
def test_a_template_cannot_leave_the_sandbox(source: str) -> None:
    with pytest.raises(BundleError, match="SecurityError"):
        ChatTemplate(source, {}).render([])


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("{% for i in range(10 ** 9) %}{% endfor %}", "OverflowError"),
        ("{{ messages[3].content.text }}", "UndefinedError"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ 1 + 'a' }}", "TypeError"),
        ("{{ messages | tojson(indent='x', no=1) }}", "TypeError"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
        ("{% include 'other' %}", "TypeError"),
        ("{% import 'other' as o %}{{ o.x }}", "TypeError"),
        ("{% extends 'other' %}", "TypeError"),
        ("{% block a %}{{ self.a() }}{% endblock %}", "RecursionError"),
        ("{{ super() }}", "UndefinedError"),
        ("{{ [1, 'a'] | sort }}", "TypeError"),
        ("{{ [1] | map('nothing') | list }}", "TemplateRuntimeError"),
        ("{{ [1] | map(nothing=1) | list }}", "FilterArgumentError"),
        ("{{ [] | random ~ ([] | max).x }}", "UndefinedError"),
        ("{{ '\u00e9'.encode('ascii') }}", "UnicodeEncodeError"),
        ("{{ {}['a']['b'] }}", "UndefinedError"),
        ("{{ 'abc'.index('z') }}", "ValueError"),
        ("{{ strftime_now(3) }}", "TypeError"),
        ("{{ (1e308 * 10) | int ~ 10 ** 0.5 ** 9999 ~ 1e308 ** 2 }}", "OverflowError"),
        ("{{ 2 ** 16000 }}", "ValueError"),
        ("{{ messages.__class__() }}", "SecurityError"),
        ("{{ lipsum(n=10 ** 9) }}", "UndefinedError"),
        ("{% for a, b in [1] %}{% endfor %}", "TypeError"),
    ],
)
def test_a_template_that_fails_is_a_bundle_error(source: str, error: str) -> None:
    with pytest.raises(BundleError, match=error):
        ChatTemplate(source, {}).render([])


def test_a_template_that_never_ends_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "MAX_CHARACTERS", 1000)
    endless = "{% for i in range(90000) %}{% for j in range(90000) %}ab{% endfor %}{% endfor %}"
    with pytest.raises(BundleError, match="more than 1000 characters"):
        ChatTemplate(endless, {}).render([])


def doubled(value: str, operator: str) -> str:
    """A template that joins a value with itself, 99 times over."""
    grow = f"{{% set n.x = n.x {operator} n.x %}}"
    return f"{{% set n = namespace(x={value}) %}}{{% for i in range(99) %}}{grow}{{% endfor %}}"


SILENT = "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    "source",
    [
        SILENT,
        SILENT.replace("in range(90000)", "in range(90000) if 1"),
        "{% macro f(n) %}{% if n %}{{ f(n - 1) ~ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
        "{% set l = [1, 2] * 90 %}" + "{% for a in l %}" * 9 + "{% endfor %}" * 9,
        "{% for a in [[[]]] * 99 recursive %}{{ loop(a * 99) }}{% endfor %}" + SILENT,
    ],
)
def test_a_template_that_writes_nothing_and_never_ends_is_stopped(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "MAX_SECONDS", 0.2)
    template = ChatTemplate(source, {})
    begun = time.monotonic()
    for act in (lambda: template.render([]), lambda: template.takes_text("user")):
        with pytest.raises(BundleError, match=r"runs for more than 0\.2 seconds"):
            act()
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'a' * 10 ** 9 }}",
        "{{ 10 ** 9 * 'a' }}",
        "{{ 10 ** (10 ** 10) }}",
        "{{ (9 ** 9999) ** 9999 }}",
        doubled("2", "*"),
        doubled("'a'", "+"),
        doubled("'a'", "~"),
        doubled("[1]", "+"),
        "{{ ([0] * 10 ** 9) | length }}",
        "{{ 'a' | center(10 ** 9) }}",
        "{{ 'a\nb' | indent(10 ** 9) }}",
        "{{ 'a'.ljust(10 ** 9) }}",
        "{{ [1] | tojson(indent=10 ** 9) }}",
        "{{ '%999999999d' % 1 }}",
        "{{ '%*d' % (10 ** 9, 1) }}",
        "{{ '%.999999999f' | format(1) }}",
        "{{ '{:>999999999}'.format(1) }}",
        "{{ 'a'.zfill(width=10 ** 9) if 0 else '\t'.expandtabs(10 ** 9) }}",
    ],
)
def test_a_template_that_grows_without_end_is_stopped(source: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(BundleError, match="OverflowError"):
            ChatTemplate(source, {}).render([])
        assert tracemalloc.get_traced_memory()[1] < 300e6
    finally:
        tracemalloc.stop()


def test_large_numbers_are_no_growth() -> None:
    source = (
        "{{ 123456789 | tojson }}{{ x | default(10 ** 9) }}{% macro f(n) %}{{ n }}{% endmacro %}"
        "{{ '%d' | format(99999999999) }}{{ '{:,}'.format(99999999999) }}"
        "{{ '20240726 %s' % 20240726 }}"
        "{{ f(99999999999) }}{{ 99999999999 + 99999999999 * 3 }}"
    )
    assert ChatTemplate(source, {}).render([]) == hugging_face(source, CHAT)


def test_takes_parts_tells_templates_apart(reference_template: str) -> None:
    assert takes_parts(reference_template)
    assert takes_parts(QWEN2_VL)
    assert takes_parts(PARTS_ONLY)
    assert not takes_parts(LLAMA)
    assert takes_parts("{{ bos_token + messages[0]['content'][0]['text'] + eos_token }}")
    assert not takes_parts("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    assert not takes_parts("{% for m in messages %}{{ m['content'] | trim }}{% endfor %}")
    assert not takes_parts("{% for m in messages %}{{ m['content'] | tojson }}{% endfor %}")


Forms = dict[str, tuple[bool, bool]]


@pytest.mark.parametrize(
    ("source", "forms"),
    [
        (LLAMA, {"user": (True, False), "assistant": (True, False)}),
        (QWEN2_VL, dict.fromkeys(("user", "assistant", "system", "tool"), (True, True))),
        (PARTS_ONLY, dict.fromkeys(("user", "assistant", "system", "tool"), (False, True))),
    ],
)
def test_the_form_is_known_for_each_role(source: str, forms: Forms) -> None:
    template = ChatTemplate(source, {"bos_token": "<s>", "eos_token": "</s>"})
    for role, form in forms.items():
        assert (template.takes_text(role), template.takes_parts(role)) == form


def test_the_reference_template_takes_parts_of_the_user_only(reference_template: str) -> None:
    template = ChatTemplate(reference_template, {})
    assert (template.takes_text("user"), template.takes_parts("user")) == (True, True)
    assert (template.takes_text("assistant"), template.takes_parts("assistant")) == (True, False)


def test_rendering_leaves_the_messages_alone() -> None:
    render: Callable[..., str] = ChatTemplate(QWEN2_VL, {}).render
    before = repr(PARTS)
    render(PARTS)
    assert repr(PARTS) == before
