"""Chat templates after the constructions that published models use, written for these tests."""

# ruff: noqa: E501  (a template's lines end where its own do)

from __future__ import annotations

import re
from pathlib import Path

_CHATML = "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
_ASK = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"


def _each(body: str, before: str = "", after: str = _ASK) -> str:
    return f"{before}{{% for m in messages %}}{body}{{% endfor %}}{after}"


CONSTRUCTIONS = {
    # How turns are written.
    "chatml": _each(_CHATML),
    "chatml with subscripts": _each(
        "<|im_start|>{{ m['role'] + '\n' + m['content'] }}<|im_end|>\n"
    ),
    "headers": _each(
        "{{ '<|header|>' ~ m.role ~ '<|end|>\n\n' ~ (m.content | trim) ~ '<|im_end|>' }}",
        "{{ bos_token }}",
        "{% if add_generation_prompt %}{{ '<|header|>assistant<|end|>\n\n' }}{% endif %}",
    ),
    "first loop turn has bos": _each(
        "{% if loop.first %}{{ bos_token }}{% endif %}[{{ m.role | upper }}] {{ m.content }}\n"
    ),
    "last turn is open": _each(
        "{{ m.role }}: {{ m.content }}{{ '' if loop.last else eos_token }}\n"
    ),
    "model instead of assistant": _each(
        "{% set role = 'model' if m.role == 'assistant' else m.role %}"
        "<start>{{ role }}\n{{ m.content | trim }}<stop>\n"
    ),
    "roles by a dict": _each(
        "{{ {'user': 'Q', 'assistant': 'A', 'system': 'S', 'tool': 'T'}[m.role] }}: {{ m.content }}\n"
    ),
    "roles by get": _each(
        "{{ {'user': 'Human'}.get(m.role, m.role | title) }}: {{ m.content }}\n\n"
    ),
    "capitalised": _each("{{ m.role | capitalize }}: {{ m.content | replace('\n', ' ') }}\n"),
    "joined by a filter": "{{ messages | map(attribute='content') | join('\n') }}",
    "selected by a filter": (
        "{% for m in messages | selectattr('role', 'equalto', 'user') %}{{ m.content }};{% endfor %}"
    ),
    "rejected by a filter": (
        "{% for m in messages | rejectattr('role', 'in', ['system', 'tool']) | list %}"
        "{{ m.role }}={{ m.content }};{% endfor %}"
    ),
    "loop filter": (
        "{% for m in messages if m.role != 'system' %}{{ loop.index }}/{{ loop.length }} "
        "{{ m.content }}\n{% else %}nobody spoke{% endfor %}"
    ),
    "neighbours of the loop": _each(
        "{% if loop.previtem is defined and loop.previtem.role == m.role %}again {% endif %}"
        "{{ m.content }}{% if loop.nextitem is defined %} -> {{ loop.nextitem.role }}{% endif %}\n"
    ),
    "cycled": _each("{{ loop.cycle('odd', 'even') }} {{ m.content }}\n"),
    "continue and break": _each(
        "{% if m.role == 'system' %}{% continue %}{% endif %}{{ m.content }}\n"
        "{% if loop.index > 3 %}{% break %}{% endif %}"
    ),
    # System messages.
    "default system": (
        "{% if messages[0].role != 'system' %}<|im_start|>system\nBe helpful.<|im_end|>\n{% endif %}"
        + _each(_CHATML)
    ),
    "system taken apart": (
        "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}"
        "{% set told = messages[0]['content'] | trim %}{% else %}{% set rest = messages %}"
        "{% set told = '' %}{% endif %}{% for m in rest %}{% if loop.index0 == 0 and told %}"
        "<<{{ told }}>>\n{% endif %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    ),
    "system in the first question": (
        "{% set ns = namespace(told='') %}{% for m in messages %}{% if m.role == 'system' %}"
        "{% set ns.told = m.content %}{% elif m.role == 'user' %}[INST] "
        "{{ ns.told + '\n\n' if ns.told else '' }}{{ m.content }} [/INST]{% set ns.told = '' %}"
        "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
    ),
    "system refused": _each(
        "{% if m.role == 'system' %}{{ raise_exception('no system messages') }}{% endif %}"
        "{{ m.content }}\n"
    ),
    "loop messages variable": (
        "{% if messages[0].role == 'system' %}{% set loop_messages = messages[1:] %}{% else %}"
        "{% set loop_messages = messages %}{% endif %}{% for m in loop_messages %}"
        "{{ m.role }}|{{ m.content }}\n{% endfor %}"
    ),
    "last system wins": (
        "{% set ns = namespace() %}{% set ns.system = 'none' %}{% for m in messages %}"
        "{% if m.role == 'system' %}{% set ns.system = m.content %}{% endif %}{% endfor %}"
        "{{ ns.system }}\n" + _each("{{ m.role }} ")
    ),
    # Alternation.
    "alternation by index": _each(
        "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('roles must alternate') }}{% endif %}{{ m.content }}"
    ),
    "alternation by a counter": (
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% if m.role in ['user', 'assistant'] %}"
        "{% if (ns.n % 2 == 0) != (m.role == 'user') %}{{ raise_exception('out of turn') }}{% endif %}"
        "{% set ns.n = ns.n + 1 %}{% endif %}{{ m.content }}|{% endfor %}{{ ns.n }}"
    ),
    "unknown roles refused": _each(
        "{% if m.role not in ('system', 'user', 'assistant') %}"
        "{{ raise_exception('unknown role ' + m.role) }}{% endif %}{{ m.content }}"
    ),
    # Content lists.
    "string or list": _each(
        "{{ m.role }}: {% if m.content is string %}{{ m.content }}{% else %}{% for part in m.content %}"
        "{% if part.type == 'image' %}<|im_start|>{% elif part.type == 'text' %}{{ part.text }}"
        "{% endif %}{% endfor %}{% endif %}\n"
    ),
    "list by iterability": _each(
        "{% if m.content is iterable and m.content is not string %}{% for part in m.content %}"
        "{{ part['text'] if 'text' in part else '<|vision|>' }}{% endfor %}{% else %}{{ m.content }}"
        "{% endif %}\n"
    ),
    "images first": _each(
        "{% if m.content is not string %}{% for part in m.content "
        "| selectattr('type', 'equalto', 'image') %}<img>{% endfor %}{% for part in m.content "
        "| selectattr('type', 'equalto', 'text') %}{{ part.text }}{% endfor %}{% else %}{{ m.content }}"
        "{% endif %}\n"
    ),
    "counted images": (
        "{% set ns = namespace(images=0) %}{% for m in messages %}{% if m.content is string %}"
        "{{ m.content }}{% else %}{% for part in m.content %}{% if part.type == 'image' %}"
        "{% set ns.images = ns.images + 1 %}Picture {{ ns.images }}: {% else %}{{ part.text }}{% endif %}"
        "{% endfor %}{% endif %}\n{% endfor %}"
    ),
    "a macro over content": (
        "{% macro show(content) %}{% if content is string %}{{ content }}{% else %}"
        "{% for part in content %}{{ part.text | default('[image]', true) }}{% endfor %}{% endif %}"
        "{% endmacro %}" + _each("{{ m.role }}: {{ show(m.content) }}\n")
    ),
    "a macro with caller": (
        "{% macro turn(role) %}<{{ role }}>{{ caller() }}</{{ role }}>{% endmacro %}"
        "{% for m in messages %}{% call turn(m.role) %}{{ m.content }}{% endcall %}{% endfor %}"
    ),
    "a macro with defaults": (
        "{% macro turn(m, sep='::', upper=false) -%}{{ m.role | upper if upper else m.role }}{{ sep }}"
        "{{ m.content }}{%- endmacro %}{% for m in messages %}"
        "{{ turn(m, upper=loop.first) }}\n{% endfor %}"
    ),
    # Thought.
    "thought cut by split": _each(
        "{% set said = m.content %}{% if '</think>' in said %}"
        "{% set said = said.split('</think>')[-1].lstrip('\n') %}{% endif %}{{ m.role }}: {{ said }}\n"
    ),
    "thought of the last answer alone": (
        "{% set ns = namespace(last=-1) %}{% for m in messages %}{% if m.role == 'user' %}"
        "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}{% for m in messages %}"
        "{% if m.role == 'assistant' and loop.index0 < ns.last %}"
        "{{ m.content.split('</think>') | last | trim }}{% else %}{{ m.content }}{% endif %}\n{% endfor %}"
    ),
    "thought as a field": _each(
        "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content.strip('\n') }}\n</think>\n\n"
        "{% endif %}{{ m.content }}\n"
    ),
    "thought as a defined string": _each(
        "{% if m.reasoning_content is defined and m.reasoning_content is string %}"
        "[{{ m.reasoning_content }}]{% elif m.thinking is defined %}({{ m.thinking }}){% endif %}"
        "{{ m.content }}\n"
    ),
    "thought switched off": _each(
        _CHATML,
        after="{% if add_generation_prompt %}<|im_start|>assistant\n"
        "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n"
        "{% endif %}{% endif %}",
    ),
    "thought opened for the answer": _each(
        _CHATML, after="{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
    ),
    "backwards through the turns": (
        "{% set ns = namespace(search=true, at=messages | length - 1) %}{% for m in messages[::-1] %}"
        "{% set index = (messages | length - 1) - loop.index0 %}{% if ns.search and m.role == 'user' "
        "and not (m.content is string and m.content.startswith('<tool>')) %}"
        "{% set ns.search = false %}{% set ns.at = index %}{% endif %}{% endfor %}last={{ ns.at }}"
    ),
    # Tools.
    "tools as json": (
        "{% if tools %}# Tools\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}{% endif %}"
        + _each(_CHATML)
    ),
    "tools indented": (
        "{% if tools is not none %}{{ tools | tojson(indent=4) }}\n{% endif %}"
        + _each("{{ m.role }},")
    ),
    "tool calls as json": _each(
        "{{ m.content or '' }}{% if m.tool_calls %}{% for call in m.tool_calls %}"
        "{% set f = call.function if call.function is defined else call %}"
        "<call>{{ {'name': f.name, 'arguments': f.arguments} | tojson }}</call>{% endfor %}{% endif %}\n"
    ),
    "tool calls defined": _each(
        "{% if m.tool_calls is defined and m.tool_calls %}{{ m.tool_calls[0]['function']['name'] }}("
        "{% for key, value in m.tool_calls[0]['function']['arguments'].items() %}{{ key }}={{ value }}"
        "{{ ', ' if not loop.last }}{% endfor %}){% else %}{{ m.content }}{% endif %}\n"
    ),
    "tool results grouped": _each(
        "{% if m.role == 'tool' %}{% if loop.first or messages[loop.index0 - 1].role != 'tool' %}<results>"
        "{% endif %}{{ m.content }};{% if loop.last or messages[loop.index0 + 1].role != 'tool' %}"
        "</results>{% endif %}{% else %}{{ m.content }}{% endif %}\n"
    ),
    "tool arguments of either form": _each(
        "{% for call in m.tool_calls or [] %}{% if call.function.arguments is string %}"
        "{{ call.function.arguments }}{% else %}{{ call.function.arguments | tojson }}{% endif %}"
        "{% endfor %}{{ m.content }}\n"
    ),
    "tool names collected": (
        "{% set ns = namespace(names=[]) %}{% for t in tools or [] %}"
        "{% set ns.names = ns.names + [t.function.name] %}{% endfor %}{{ ns.names | join(', ') }}\n"
        + _each("{{ m.content }}\n")
    ),
    "parameters sorted": (
        "{% for t in tools or [] %}{% for name, p in t.function.parameters.properties | dictsort %}"
        "{{ name }}:{{ p.type }} {% endfor %}{% endfor %}" + _each("{{ m.content }}")
    ),
    # Dates.
    "the year": "{{ strftime_now('%Y') }} " + _each("{{ m.content }}"),
    "a date if one is given": (
        "{% if not date_string is defined %}{% if strftime_now is defined %}"
        "{% set date_string = strftime_now('%d %b %Y') %}{% else %}{% set date_string = '26 Jul 2024' %}"
        "{% endif %}{% endif %}Today: {{ date_string }}\n" + _each("{{ m.content }}")
    ),
    # Blocks, scopes and white space.
    "generation blocks": _each(
        "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{{ eos_token }}{% endgeneration %}"
        "{% else %}{{ m.content }}{% endif %}\n"
    ),
    "a set inside a generation block": _each(
        "{% set x = 'out' %}{% generation %}{% set x = 'in' %}{{ x }}{% endgeneration %}{{ x }}"
    ),
    "a set block": _each("{% set line %}{{ m.role }}: {{ m.content }}{% endset %}{{ line }};"),
    "a filter block": _each("{% filter upper %}{{ m.role }}{% endfilter %} {{ m.content }}\n"),
    "a with block": _each(
        "{% with r = m.role, c = m.content %}{{ r }}{{ c }}{% endwith %}{{ r }}\n"
    ),
    "lines that are stripped": (
        "{%- for m in messages -%}\n    {%- if m.role == 'user' -%}\n        U: {{- m.content -}}\n"
        "    {%- else -%}\n        O: {{ m.content }}\n    {%- endif -%}\n{%- endfor -%}\n"
    ),
    "lines that are trimmed": (
        "{% for m in messages %}\n    {% if loop.first %}\n    first\n    {% endif %}\n  {{ m.content }}\n"
        "{% endfor %}\nend\n"
    ),
    "comments and raw": (
        "{# not shown #}{% raw %}{{ kept }}{% endraw %}" + _each("{#- tight -#} {{ m.content }}\n")
    ),
    # Strings, numbers, lists and tests.
    "string methods": _each(
        "{{ m.role.title() }} {{ m.role.startswith('a') }} {{ m.role.replace('s', 'z') }} "
        "{{ m.role.find('e') }} {{ '-'.join([m.role, 'x']) }} {{ m.role.rstrip('rt') }}\n"
    ),
    "slices and arithmetic": (
        "{{ messages | length }} {{ messages[-1].role }} {{ messages[:2] | length }} {{ 7 // 2 }} {{ 7 % 3 }}"
        " {{ 2 ** 3 }} {{ 7 / 2 }} {{ 'ab' * 2 }} {{ [1, 2] + [3] }} {{ (1, 2) }} {{ {'a': none} }}"
    ),
    "tests": _each(
        "{{ m.content is string }}{{ m.content is mapping }}{{ m.nothing is defined }}{{ m.role is none }}"
        "{{ m.role is sameas m.role }}{{ loop.index is odd }}{{ m.role is in ['user'] }}\n"
    ),
    "undefined": "[{{ missing }}][{{ missing | default('d') }}][{{ missing is undefined }}]",
    "escapes as they are": _each("{{ m.content | tojson }}{{ m | tojson }}\n"),
    "sorted json": "{{ messages | tojson(sort_keys=true, separators=(',', ':')) }}",
    "numbers of a range": "{% for i in range(3) %}{{ i }}{% endfor %}{{ range(2, 6, 2) | list }}",
    "filters of lists": (
        "{{ [3, 1, 2] | sort }}{{ [1, 1, 2] | unique | list }}{{ [1, 2, 3] | sum }}{{ [1, 2] | last }}"
        "{{ 'a b' | wordcount }}{{ 'abcdef' | batch(2) | list }}{{ messages | map('tojson') | join }}"
    ),
    "a recursive loop": (
        "{% for item in [{'n': 1, 'sub': [{'n': 2, 'sub': []}]}] recursive %}{{ item.n }}"
        "({{ loop(item.sub) }}){% endfor %}"
    ),
    "inline conditions": _each(
        "{{ 'U' if m.role == 'user' else 'A' if m.role == 'assistant' else '?' }}"
    ),
    "a namespace called self": "{% set ns = namespace(self='x', n=1) %}{{ ns.self }}{{ ns.n }}",
    "a dict that grows": (
        "{% set ns = namespace(d={}) %}{% for m in messages %}"
        "{% set ns.d = dict(ns.d, **{m.role: loop.index}) %}{% endfor %}{{ ns.d | tojson }}"
    ),
}


def _read(file: Path) -> dict[str, str]:
    """Templates that are laid out in lines as published ones are; "### name" begins one."""
    _, *pieces = re.split(r"^### (.+)\n", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(pieces[::2], pieces[1::2], strict=True))


CONSTRUCTIONS |= _read(Path(__file__).parents[1] / "data" / "chat_templates.txt")

MEASURING = (
    "string methods",
    "filters of text",
    "tools with separators and escaped letters",
    "quotes, escapes and letters of other scripts",
    "tokens of the template in a test of what was said",
    "tools and calls as XML",
    "filter blocks and raw blocks",
)
"""They count or change letters, or look for control tokens; one that was said is a letter to them."""

_CALL = {
    "id": "c1",
    "type": "function",
    "function": {"name": "weather", "arguments": {"city": "Z\u00fcrich", "days": 2}},
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "How it will be <there> & then",
            "parameters": {
                "type": "object",
                "properties": {"days": {"type": "integer"}, "city": {"type": "string"}},
            },
        },
    }
]
HOLDING_CONTROLS = ("a thought in the answer", "other scripts")
DOCUMENTS = [{"title": "T", "text": "by <A> & B"}]
CONVERSATIONS = {
    "a question": [{"role": "user", "content": "hello"}],
    "a system": [{"role": "system", "content": " be brief "}, {"role": "user", "content": "hi"}],
    "three turns": [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ],
    "system and turns": [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "a\nb"},
        {"role": "assistant", "content": "  c\n"},
        {"role": "user", "content": ""},
    ],
    "an answer last": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
    "two users in a row": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
    "keys that are None": [
        {"role": "user", "content": "a", "name": None, "tool_calls": None},
        {
            "role": "assistant",
            "content": "b",
            "refusal": None,
            "audio": None,
            "function_call": None,
            "tool_calls": None,
            "reasoning_content": None,
            "annotations": None,
        },
        {"role": "user", "content": "c", "reasoning": None},
    ],
    "reasoning": [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "reasoning": "because\n"},
        {"role": "user", "content": "c"},
    ],
    "reasoning under two names": [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "reasoning_content": "one", "reasoning": "two"},
        {"role": "user", "content": "c"},
    ],
    "a thought in the answer": [
        {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": "<think>\nit is two\n</think>\n\n2"},
        {"role": "user", "content": "and 2+2?"},
    ],
    "tool calls": [
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": None, "tool_calls": [_CALL]},
        {"role": "tool", "content": '{"sun": true}', "tool_call_id": "c1"},
        {"role": "tool", "content": "rain", "tool_call_id": "c2"},
    ],
    "tool calls beside words": [
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": "let me see", "tool_calls": [_CALL, _CALL]},
        {"role": "tool", "content": "sun", "name": "weather"},
        {"role": "user", "content": "thanks"},
    ],
    "parts": [
        {
            "role": "user",
            "content": [{"type": "text", "text": "look "}, {"type": "text", "text": "here"}],
        },
        {"role": "assistant", "content": [{"type": "text", "text": "yes"}]},
        {"role": "user", "content": [{"type": "text", "text": "more"}]},
    ],
    "tool calls with text for arguments": [
        {"role": "system", "content": "Use tools."},
        {"role": "user", "content": "weather?", "extra": {"a": [1, 2.5, True, None]}},
        {
            "role": "assistant",
            "content": None,
            "thinking": "one call\n",
            "tool_calls": [
                {
                    "id": "a1b2c3d4e",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"city": "Bern"}'},
                }
            ],
        },
        {"role": "tool", "content": "sun", "tool_call_id": "a1b2c3d4e", "name": None},
        {"role": "assistant", "content": "Sun.", "reasoning": "seen"},
    ],
    "the assistant first": [
        {"role": "assistant", "content": "Hello!"},
        {"role": "assistant", "content": "Ask me."},
        {"role": "developer", "content": "Rules"},
    ],
    "nothing said": [
        {"role": "system", "content": ""},
        {"role": "user", "content": ""},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": "\r\n\t"},
    ],
    "other scripts": [
        {
            "role": "user",
            "content": "\u4f60\u597d \U0001f600 e\u0301 <b>&amp;</b> 'x' \"y\" \\n {{ no }}",
        },
        {"role": "assistant", "content": "\u0434\u0430 \u0639\u0631\u0628\u064a\t\u00a0"},
        {"role": "user", "content": "<|im_end|> <|im_start|>system"},
    ],
}
"""What is asked in each template; the last one holds what looks like control tokens."""
