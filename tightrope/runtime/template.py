"""Chat templates: a bundle's jinja source, rendered as Hugging Face renders it, in a sandbox."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

import jinja2
import jinja2.exceptions
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox
import jinja2.utils
from jinja2 import nodes

from tightrope.errors import BundleError, InputError
from tightrope.foreign import words

Message = Mapping[str, Any]

MAX_RENDERED_CHARACTERS = 16_000_000
"""A template that writes more is broken: the longest contexts in use are a quarter of that."""

_MARK = "tightrope-trial"
_PRINTED = re.compile(rf"""["']text["']\s*:\s*["']{_MARK}""")


class ChatTemplate:
    """A compiled chat template together with the special tokens that it may name."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        """special_tokens: by name, such as {"bos_token": "<s>"}; variables of the template.

        Raises BundleError if the source is not valid jinja.
        """
        self._special_tokens = dict(special_tokens)
        self._forms: dict[tuple[str, bool], bool] = {}
        try:
            environment = _environment()
            self._template = environment.from_string(source)
            self._sought = _sought(environment.parse(source))
        except Exception as error:  # folding of constants runs them
            raise BundleError(
                f"chat_template.jinja is not a valid template ({words(error)}); export the bundle "
                "again"
            ) from error

    def render(
        self, messages: Sequence[Message], add_generation_prompt: bool = True, **arguments: Any
    ) -> str:
        """The conversation as one string, special tokens written out.

        messages: plain values only (str, numbers, lists, dicts), content in the template's form.
        arguments: further variables of the template, such as `tools` or `enable_thinking`.
        Raises InputError with the template's own words if it refuses the messages, and
        BundleError if it fails.
        """
        variables = {"tools": None, "documents": None, **self._special_tokens, **arguments}
        variables |= {"messages": messages, "add_generation_prompt": add_generation_prompt}
        try:
            return "".join(_bounded(self._template.generate(variables)))
        except _Refused as error:
            raise InputError(f"the chat template refuses these messages: {error}") from error
        # A template is a program: what comes out of it is not jinja's own errors alone.
        except Exception as error:
            raise BundleError(
                f"chat_template.jinja fails on these messages "
                f"({type(error).__name__}: {words(error)}); check their form, or the bundle's "
                "template"
            ) from error

    def looks_for(self, text: str) -> bool:
        """Whether the template looks for a text in what it is given, rather than writing it."""
        return any(text in sought for sought in self._sought)

    def takes_text(self, role: str) -> bool:
        """Whether the content of a message of this role may be a string."""
        return self._takes(role, parts=False)

    def takes_parts(self, role: str) -> bool:
        """Whether the content of a message of this role may be a list of typed parts."""
        return self._takes(role, parts=True)

    def _takes(self, role: str, parts: bool) -> bool:
        if (role, parts) not in self._forms:
            self._forms[role, parts] = self._renders(role, parts)
        return self._forms[role, parts]

    def _renders(self, role: str, parts: bool) -> bool:
        """Whether a marked text comes out of a trial conversation as text.

        A template that takes strings only either fails on a list or prints it as Python does,
        which shows its keys; one that takes lists only finds no part in a string.
        """
        marked = _content(_MARK, parts)
        # A question in front where templates insist that roles alternate from the user on.
        question = {"role": "user", "content": _content("?", parts)}
        if role != "user":
            question["content"] = _content("?", not self.takes_text("user"))
        trial = [{"role": role, "content": marked}]
        trial = {"user": trial, "system": [*trial, question]}.get(role, [question, *trial])
        try:
            rendered = self.render(trial)
        except (InputError, BundleError):
            return False
        return _MARK in rendered and not _PRINTED.search(rendered)


def takes_parts(source: str) -> bool:
    """Whether a template takes a user's content as a list of typed parts.

    False for one that takes a string only; one that takes both says True.
    """
    # Their spelling does not matter here, but adding to an undefined name fails.
    names = ("bos_token", "eos_token", "pad_token", "unk_token")
    return ChatTemplate(source, dict.fromkeys(names, "")).takes_parts("user")


def _sought(tree: nodes.Template) -> frozenset[str]:
    """Constants that a template compares with, splits by, or hands to a method, filter or test."""
    places: list[nodes.Node] = []
    for compare in tree.find_all(nodes.Compare):
        places += [compare.expr, *(operand.expr for operand in compare.ops)]
    calls: list[nodes.Call | nodes.Filter | nodes.Test] = []
    calls += [*tree.find_all(nodes.Call), *tree.find_all(nodes.Filter), *tree.find_all(nodes.Test)]
    for call in calls:
        places += call.args
    # A name for a marker is for looking for it, too.
    places += [assigned.node for assigned in tree.find_all(nodes.Assign)]
    return frozenset(
        place.value
        for place in places
        if isinstance(place, nodes.Const) and isinstance(place.value, str)
    )


def _content(text: str, parts: bool) -> str | list[dict[str, str]]:
    return [{"type": "text", "text": text}] if parts else text


def _bounded(pieces: Iterable[str]) -> Iterator[str]:
    """The pieces, up to MAX_RENDERED_CHARACTERS in all."""
    written = 0
    for piece in pieces:
        written += len(piece)
        if written > MAX_RENDERED_CHARACTERS:
            raise OverflowError(f"it writes more than {MAX_RENDERED_CHARACTERS} characters")
        yield piece


class _Refused(jinja2.TemplateError):
    """The template called raise_exception: its judgement of the messages, not a defect of it."""


def _environment() -> jinja2.Environment:
    """The sandbox that transformers compiles chat templates in, tag by tag and name by name."""
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    environment.globals["dict"] = _Dict()
    environment.globals["namespace"] = _Namespace
    return environment


class _Generation(jinja2.ext.Extension):
    """`{% generation %}`: marks what the assistant said, for training; here it adds nothing."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        lineno = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = self.call_method("_body")
        # A call block, as in transformers, so that variables set inside stay inside.
        return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(lineno)

    def _body(self, caller: Any) -> Any:
        return caller()


class _Dict:
    """`dict(...)` without the type itself, whose attributes lead out of the sandbox."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args, **kwargs)


class _Namespace(jinja2.utils.Namespace):
    """`namespace(...)` that stores no underscored name."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        # Like jinja's own, so that a template may store an attribute called `self`.
        self, args = args[0], args[1:]
        attributes = dict(*args, **kwargs)
        for name in attributes:
            _refuse_underscored(name)
        jinja2.utils.Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_underscored(name)
        super().__setitem__(name, value)


def _refuse_underscored(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(
            f"a namespace stores no underscored name, here {name!r}"
        )


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as it is: jinja's own filter escapes HTML, which models were not trained on."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: str) -> NoReturn:
    raise _Refused(message)


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)
