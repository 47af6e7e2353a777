"""The sandbox that chat templates run in: transformers' own, name by name, with limits.

A template is a program that came with a checkpoint. It can reach nothing but its variables, and it
ends: by MAX_SECONDS, by MAX_CHARACTERS of what it writes or joins, or by itself.
"""

from __future__ import annotations

import contextvars
import functools
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any, NoReturn

import jinja2
import jinja2.compiler
import jinja2.exceptions
import jinja2.ext
import jinja2.filters
import jinja2.nodes
import jinja2.parser
import jinja2.runtime
import jinja2.sandbox
import jinja2.utils

MAX_CHARACTERS = 16_000_000
"""A template that writes more is broken: the longest contexts in use are a quarter of that."""

MAX_SECONDS = 10.0
"""A template that runs for longer is broken: long conversations take milliseconds."""

_MAX_BITS = 100_000
_WIDENING = ("batch", "center", "indent", "slice", "tojson", "wordwrap")
_OPERATORS = frozenset(["+", "*", "**", "%"])
_PADDING = frozenset(["center", "expandtabs", "ljust", "rjust", "zfill"])
_WIDE = re.compile(r"%[-+ #0]*[\d.]{8,}|%[-+ #0\d.]*\*|\{[^{}]*\d{8,}")
"""Fields of a format that pad without end, or as far as an argument says."""

_deadline: contextvars.ContextVar[float] = contextvars.ContextVar("deadline", default=float("inf"))


class Refused(jinja2.TemplateError):
    """The template called raise_exception: its judgement of the messages, not a defect of it."""


def rendered(template: jinja2.Template, variables: dict[str, Any]) -> str:
    """What a template of this sandbox writes.

    Raises Refused; TimeoutError and OverflowError at the limits; and whatever a program may raise.
    """
    token = _deadline.set(time.monotonic() + MAX_SECONDS)
    try:
        return "".join(_bounded(template.generate(variables)))
    finally:
        _deadline.reset(token)


def environment() -> jinja2.Environment:
    """A sandbox of its own, to compile a template in."""
    sandbox = _Sandbox(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    sandbox.filters["tojson"] = _tojson
    sandbox.filters |= {name: _limited(sandbox.filters[name]) for name in _WIDENING}
    sandbox.filters["format"] = _format
    del sandbox.globals["lipsum"]  # text without end, drawn by chance
    sandbox.globals["raise_exception"] = _raise_exception
    sandbox.globals["strftime_now"] = _strftime_now
    sandbox.globals["dict"] = _Dict()
    sandbox.globals["namespace"] = _Namespace
    return sandbox


def _bounded(pieces: Iterable[str]) -> Iterator[str]:
    """The pieces, up to MAX_CHARACTERS in all."""
    written = 0
    for piece in pieces:
        written += len(piece)
        _check_size(written)
        _check_time()
        yield piece


def _check_time() -> None:
    if time.monotonic() > _deadline.get():
        raise TimeoutError(f"it runs for more than {MAX_SECONDS:g} seconds")


def _check_size(characters: int) -> None:
    if characters > MAX_CHARACTERS:
        raise OverflowError(f"it writes more than {MAX_CHARACTERS} characters")


class _Code(jinja2.compiler.CodeGenerator):
    """Compiles loops and joins so that the sandbox sees every turn and every length."""

    def visit_For(self, node: jinja2.nodes.For, frame: jinja2.compiler.Frame) -> None:
        # Calls are timed; a loop may be without one.
        turn = jinja2.nodes.EnvironmentAttribute("turn")
        node.body.insert(0, jinja2.nodes.ExprStmt(jinja2.nodes.Call(turn, [], [], None, None)))
        super().visit_For(node, frame)

    def visit_Concat(self, node: jinja2.nodes.Concat, frame: jinja2.compiler.Frame) -> None:
        if frame.eval_ctx.volatile or frame.eval_ctx.autoescape:
            super().visit_Concat(node, frame)
            return
        self.write("environment.joined((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")


class _Sandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """Every call, loop and growing operator within the limits."""

    code_generator_class = _Code
    intercepted_binops = _OPERATORS

    def turn(self) -> None:
        """What each turn of a loop calls."""

    def joined(self, parts: tuple[Any, ...]) -> str:
        """`a ~ b`, as jinja joins it."""
        texts = [str(part) for part in parts]
        _check_size(sum(map(len, texts)))
        return "".join(texts)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """As jinja's, whose names leave a template free to use any keyword."""
        _check_time()
        method = getattr(__obj, "__wrapped__", __obj)  # as jinja wraps str.format
        text, name = getattr(method, "__self__", None), getattr(method, "__name__", None)
        if isinstance(text, str) and name in _PADDING:
            _check_numbers((*args, *kwargs.values()))
        if isinstance(text, str) and name in ("format", "format_map"):
            _check_format(text)
        return super().call(__context, __obj, *args, **kwargs)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """An operator of _OPERATORS, unless what it makes is too long."""
        _check_time()
        if isinstance(left, int) and isinstance(right, int):
            _check_bits(operator, left, right)
        elif operator == "*":
            times = left if isinstance(left, int) else right
            if isinstance(times, int):
                _check_size(_length(right if times is left else left) * times)
        elif operator == "+":
            _check_size(_length(left) + _length(right))
        elif isinstance(left, str):
            _check_format(left)
        return super().call_binop(context, operator, left, right)


def _check_bits(operator: str, left: int, right: int) -> None:
    bits = left.bit_length() * right if operator == "**" else left.bit_length()
    if max(bits, right.bit_length()) > _MAX_BITS:
        raise OverflowError("it computes a number of more digits than fit anything")


def _check_numbers(arguments: Iterable[Any]) -> None:
    """The numbers among the arguments of what pads and cuts text."""
    for value in arguments:
        if isinstance(value, int):
            _check_size(value)


def _check_format(text: str) -> None:
    if _WIDE.search(text):
        raise OverflowError("it formats with a width that fits nothing")


def _length(value: Any) -> int:
    return len(value) if isinstance(value, (str, bytes, list, tuple)) else 0


def _limited(filter: Callable[..., Any]) -> Callable[..., Any]:
    """A filter whose arguments, all but what is filtered, are widths or counts."""
    own = 2 if hasattr(filter, "jinja_pass_arg") else 1

    @functools.wraps(filter)
    def limited(*args: Any, **kwargs: Any) -> Any:
        _check_numbers((*args[own:], *kwargs.values()))
        return filter(*args, **kwargs)

    return limited


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


def _format(value: str, *args: Any, **kwargs: Any) -> str:
    """jinja's filter, which is `%` with the one or the other kind of arguments."""
    _check_format(value)
    return jinja2.filters.do_format(value, *args, **kwargs)


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
    raise Refused(message)


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)
