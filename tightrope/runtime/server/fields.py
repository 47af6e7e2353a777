"""The fields of a request: kind, sentence, and what of OpenAI's is accepted only as it is usual.

Both the reading of a body and the OpenAPI document follow these tables. A null leaves it out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tightrope.budget import UNREACHABLE, Budget
from tightrope.checks import shown
from tightrope.configs import help_of
from tightrope.errors import InputError
from tightrope.point import OperatingPoint
from tightrope.runtime.options import Options
from tightrope.runtime.server.messages import SCHEMA as MESSAGE


@dataclass(frozen=True, slots=True)
class Kind:
    """What JSON may stand in a field; its range is judged where the value is used."""

    accepted: str
    schema: Mapping[str, Any]
    fits: Callable[[Any], bool]


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a request."""

    kind: Kind
    sentence: str
    required: bool = False


@dataclass(frozen=True, slots=True)
class Neutral:
    """A field of OpenAI's that changes nothing here, and its values of which that is true."""

    values: tuple[Any, ...] = ()
    any_text: bool = False
    """Whether any string says nothing about the answer, such as a user's name."""


def _is_whole(value: Any) -> bool:
    return type(value) is int


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= 1e308  # a larger one is none in binary


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _list_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(fits, value))


def _either(*kinds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: any(fits(value) for fits in kinds)


def _list_schema(of: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": of}


_INTEGER, _STRING = {"type": "integer"}, {"type": "string"}
WHOLE = Kind("a whole number", _INTEGER, _is_whole)
NUMBER = Kind("a finite number", {"type": "number"}, _is_number)
TEXT = Kind("a string", _STRING, _is_text)
FLAG = Kind("true or false", {"type": "boolean"}, lambda value: isinstance(value, bool))
TEXTS = Kind(
    "a string, or a list of strings",
    {"anyOf": [_STRING, _list_schema(_STRING)]},
    _either(_is_text, _list_of(_is_text)),
)
WHOLES = Kind(
    "a whole number, or a list of them",
    {"anyOf": [_INTEGER, _list_schema(_INTEGER)]},
    _either(_is_whole, _list_of(_is_whole)),
)
_KEEP = {"anyOf": [_INTEGER, _STRING]}
KEEP = Kind(
    'a count, a percentage such as "25%", or a list with one of them for each selector',
    {"anyOf": [*_KEEP["anyOf"], _list_schema(_KEEP)]},
    _either(_is_whole, _is_text, _list_of(_either(_is_whole, _is_text))),
)
PROMPT = Kind(
    "a string, or a list of token ids",
    {"anyOf": [_STRING, _list_schema(_INTEGER)]},
    _either(_is_text, _list_of(_is_whole)),
)
MESSAGES = Kind(
    "a list of messages",
    {**_list_schema(MESSAGE), "minItems": 1},
    _list_of(lambda value: isinstance(value, dict)),
)
REACHING = Kind(" or ".join(UNREACHABLE), {"enum": list(UNREACHABLE)}, _is_text)
BIAS = Kind(
    "an object of numbers by token id",
    {
        "type": "object",
        "propertyNames": {"pattern": "^[0-9]{1,10}$"},
        "additionalProperties": {"type": "number"},
    },
    lambda value: isinstance(value, dict) and all(map(_is_number, value.values())),
)
STREAMING = Kind(
    "an object with include_usage",
    {
        "type": "object",
        "properties": {
            "include_usage": {"type": ["boolean", "null"]},
            "include_obfuscation": {"enum": [False, None]},
        },
        "additionalProperties": False,
    },
    lambda value: isinstance(value, dict),
)


def _of(config: type, kinds: Mapping[str, Kind]) -> dict[str, Field]:
    """Fields that are settings of a config, with the sentences that are said there."""
    return {name: Field(kind, help_of(config, name)) for name, kind in kinds.items()}


SAMPLING = _of(
    Options,
    {
        "temperature": NUMBER,
        "top_p": NUMBER,
        "top_k": WHOLE,
        "min_p": NUMBER,
        "repetition_penalty": NUMBER,
        "presence_penalty": NUMBER,
        "frequency_penalty": NUMBER,
        "logit_bias": BIAS,
        "n": WHOLE,
        "stop": TEXTS,
    },
) | {"seed": Field(WHOLE, "Seed of the sampling; left out, one is drawn and told in the reply.")}
POINT = _of(
    OperatingPoint,
    {
        "selector": TEXT,
        "keep": KEEP,
        "policy": TEXT,
        "kv_budget": WHOLES,
        "resolution": WHOLE,
        "sinks": WHOLE,
        "recent": WHOLE,
        "thinking_tokens": WHOLE,
    },
)
BUDGET = _of(
    Budget,
    {
        "deadline_ms": NUMBER,
        "first_token_ms": NUMBER,
        "energy_j": NUMBER,
        "min_quality": NUMBER,
        "task": TEXT,
        "if_unreachable": REACHING,
    },
)
LIMITS = ("deadline_ms", "first_token_ms", "energy_j", "min_quality")
"""Of these fields, what a budget is; the others say more of it."""
_COMMON = {
    "model": Field(TEXT, "Which bundle answers: the name of its folder; the only one if left out."),
    "max_tokens": Field(WHOLE, help_of(Options, "max_tokens")),
    "stream": Field(FLAG, "Send the answer while it grows, as server-sent events."),
    "stream_options": Field(STREAMING, "Whether a last event tells the usage."),
    **SAMPLING,
    **POINT,
    **BUDGET,
}
CHAT = {
    "messages": Field(MESSAGES, "The conversation; images are data: addresses.", required=True),
    "max_completion_tokens": Field(WHOLE, help_of(Options, "max_tokens")),
    "thinking": Field(FLAG, help_of(Options, "thinking")),
    "logprobs": Field(FLAG, "Tell how likely the tokens were."),
    "top_logprobs": Field(WHOLE, "Beside each, so many of the likeliest; needs logprobs."),
    **_COMMON,
}
COMPLETION = {
    "prompt": Field(PROMPT, "Text to go on with, as it stands, or token ids.", required=True),
    "logprobs": Field(WHOLE, help_of(Options, "logprobs")),
    **_COMMON,
}

_NAME = Neutral(any_text=True)
_NEUTRAL = {
    "user": _NAME,
    "safety_identifier": _NAME,
    "prompt_cache_key": _NAME,
    "store": Neutral((False,)),
    "metadata": Neutral(({},)),
    "service_tier": Neutral(("auto", "default")),
}
NEUTRAL_CHAT = {
    **_NEUTRAL,
    "response_format": Neutral(({"type": "text"},)),
    "modalities": Neutral((["text"],)),
    "tools": Neutral(([],)),
    "tool_choice": Neutral(("none", "auto")),
    "parallel_tool_calls": Neutral((True, False)),
    "functions": Neutral(([],)),
    "function_call": Neutral(("none", "auto")),
    "verbosity": Neutral(("medium",)),
    "audio": Neutral(),
    "prediction": Neutral(),
    "reasoning_effort": Neutral(),
    "prompt_cache_retention": Neutral(("in_memory",)),
    "prompt_cache_options": Neutral(({}, {"mode": "implicit"})),
    "moderation": Neutral(),
    "web_search_options": Neutral(),
}
NEUTRAL_COMPLETION = {
    **_NEUTRAL,
    "best_of": Neutral((1,)),
    "echo": Neutral((False,)),
    "suffix": Neutral(("",)),
}


def read_fields(
    body: Any, fields: Mapping[str, Field], neutral: Mapping[str, Neutral]
) -> dict[str, Any]:
    """The fields that a body sets; raises InputError naming one that is wrong or unknown."""
    if not isinstance(body, dict):
        raise InputError(f"the body is {_brief(body)}; accepted: an object")
    given = {name: value for name, value in body.items() if value is not None}
    for name, value in given.items():
        if (field := fields.get(name)) is not None:
            if not field.kind.fits(value):
                raise InputError(f"{name} is {_brief(value)}; accepted: {field.kind.accepted}")
        elif (known := neutral.get(name)) is not None:
            _check_neutral(name, value, known)
        else:
            raise InputError(f"{_word(name)} is no field that this server knows; leave it out")
    if missing := [name for name, field in fields.items() if field.required and name not in given]:
        raise InputError(f"{missing[0]} is missing; accepted: {fields[missing[0]].kind.accepted}")
    return {name: value for name, value in given.items() if name in fields}


def _check_neutral(name: str, value: Any, known: Neutral) -> None:
    if known.any_text and isinstance(value, str):
        return
    if any(value == one and type(value) in _alike(one) for one in known.values):
        return
    accepted = "a string" if known.any_text else " or ".join(map(repr, known.values))
    raise InputError(
        f"{name} is {_brief(value)}, which this server does not do; accepted: "
        f"{accepted or 'nothing, leave it out'}"
    )


def _alike(value: Any) -> tuple[type, ...]:
    """Types in which JSON may say a value: 0 may come as 0.0, but not as false."""
    return (int, float) if type(value) is int else (type(value),)


def _brief(value: Any) -> str:
    """A value as an error shows it; of lists and objects only what they are."""
    if isinstance(value, dict):
        return "an object"
    return "a list" if isinstance(value, list) else shown(value)


def _word(name: str) -> str:
    """A field's name where the caller made it up."""
    return name if name.isidentifier() and len(name) <= 64 else shown(name)
