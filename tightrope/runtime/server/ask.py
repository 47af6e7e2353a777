"""From the fields of a body to a prompt, its images, and options of the runtime."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from tightrope.budget import Budget
from tightrope.checks import check_whole, shown
from tightrope.errors import InputError
from tightrope.point import OperatingPoint
from tightrope.runtime.loaded import Loaded
from tightrope.runtime.options import MOST_LOGPROBS, Content, Options, Prompt
from tightrope.runtime.server import fields
from tightrope.runtime.server.fields import Field, Neutral, read_fields
from tightrope.runtime.server.messages import ImageLimits, read_messages
from tightrope.runtime.server.refusal import Refused

MOST_SEED = 2**63 - 1
MOST_STOPS = 16
"""Strings that end an answer: each is looked for behind every token."""
_LONGEST = ("max_tokens", "max_completion_tokens")
_STREAMING = {"include_usage": (True, False), "include_obfuscation": (False,)}
_PLAIN = (
    *("temperature", "top_p", "top_k", "min_p", "n", "thinking"),
    *("repetition_penalty", "presence_penalty", "frequency_penalty"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request as the runtime takes it, and how its reply is sent."""

    model: str
    loaded: Loaded
    prompt: Prompt
    images: list[Content]
    options: Options
    stream: bool
    include_usage: bool


@dataclass(frozen=True, slots=True)
class Form:
    """What requests to one address look like."""

    fields: Mapping[str, Field]
    neutral: Mapping[str, Neutral]
    prompt: Callable[[dict[str, Any], Loaded, ImageLimits], tuple[Prompt, list[Content]]]

    @property
    def names(self) -> set[str]:
        """Of all that a body may have."""
        return {*self.fields, *self.neutral}


def asked_by(
    body: Any,
    form: Form,
    names: Collection[str],
    take: Callable[[str], Loaded],
    limits: ImageLimits,
) -> Asked:
    """What a body asks for; raises InputError and Refused naming what is wrong with it.

    names: of the bundles; take: has the one that is asked in memory.
    """
    given = read_fields(body, form.fields, form.neutral)
    model = _model(given, names)
    options, include_usage = _options(given, limits), _include_usage(given)
    loaded = take(model)
    prompt, images = form.prompt(given, loaded, limits)
    return Asked(
        model=model,
        loaded=loaded,
        prompt=prompt,
        images=images,
        options=options,
        stream=given.get("stream", False),
        include_usage=include_usage,
    )


def _include_usage(given: Mapping[str, Any]) -> bool:
    """Whether a last event tells the usage."""
    streaming = given.get("stream_options", {})
    if unknown := [key for key in streaming if key not in _STREAMING]:
        raise InputError(
            f"stream_options has {shown(unknown[0])}; accepted: {', '.join(_STREAMING)}"
        )
    for name, accepted in _STREAMING.items():
        if not any(streaming.get(name) is value for value in (None, *accepted)):
            said = " or ".join(str(value).lower() for value in accepted)
            raise InputError(f"stream_options.{name} is {shown(streaming[name])}; accepted: {said}")
    return bool(streaming.get("include_usage"))


def _model(given: Mapping[str, Any], names: Collection[str]) -> str:
    if "model" not in given and len(names) == 1:
        return next(iter(names))
    known = ", ".join(names)
    if "model" not in given:
        raise InputError(f"model is missing; accepted: {known}")
    model: str = given["model"]
    if model not in names:
        raise Refused(
            404,
            f"model is {shown(model)}; this server has {known}",
            code="model_not_found",
            param="model",
        )
    return model


def _options(given: Mapping[str, Any], limits: ImageLimits) -> Options:
    config = limits.config
    longest = [name for name in _LONGEST if name in given]
    if len(longest) > 1:
        raise InputError("max_tokens and max_completion_tokens say the same; give one")
    for name in longest:
        check_whole(name, given[name], least=1, most=config.max_tokens)
    if "n" in given:
        check_whole("n", given["n"], least=1, most=config.max_answers)
    if "seed" in given:
        check_whole("seed", given["seed"], least=0, most=MOST_SEED)
    stop = given.get("stop")
    if isinstance(stop, list) and len(stop) > MOST_STOPS:
        raise InputError(f"stop has {len(stop)} strings; accepted: {MOST_STOPS} at most")
    values = {name: given[name] for name in _PLAIN if name in given}
    if longest:
        values["max_tokens"] = given[longest[0]]
    return Options(
        **values,
        seed=given.get("seed", secrets.randbelow(2**31)),
        logit_bias=_bias(given.get("logit_bias", {})),
        logprobs=_logprobs(given),
        stop=[stop] if isinstance(stop, str) else stop,
        budget=_budget(given),
        point=_point(given),
    )


def _bias(given: Mapping[str, float]) -> dict[int, float] | None:
    if bad := [token for token in given if not token.isdecimal() or len(token) > 10]:
        raise InputError(f"logit_bias has {shown(bad[0])}; accepted: numbers by token id")
    return {int(token): bias for token, bias in given.items()} or None


def _logprobs(given: Mapping[str, Any]) -> int | None:
    """How many of the likeliest tokens are told; None where nothing is."""
    asked = given.get("logprobs", False)
    if not isinstance(asked, bool):  # as completions say it
        return int(asked)
    if "top_logprobs" in given:
        check_whole("top_logprobs", given["top_logprobs"], least=0, most=MOST_LOGPROBS)
        if not asked:
            raise InputError("top_logprobs needs logprobs to be true; set it, or leave both out")
    return given.get("top_logprobs", 0) if asked else None


def _budget(given: Mapping[str, Any]) -> Budget | None:
    values = {name: given[name] for name in fields.BUDGET if name in given}
    if values and not any(name in values for name in fields.LIMITS):
        limits = ", ".join(fields.LIMITS)
        raise InputError(f"{next(iter(values))} needs a limit beside it; accepted: {limits}")
    return Budget(**values) if values else None


def _point(given: Mapping[str, Any]) -> OperatingPoint | None:
    values = {name: given[name] for name in fields.POINT if name in given}
    for name, value in values.items():
        if isinstance(value, list):
            if not value:
                raise InputError(f"{name} is an empty list; leave it out")
            values[name] = tuple(value)
    return OperatingPoint(**values) if values else None


def _chat(
    given: dict[str, Any], loaded: Loaded, limits: ImageLimits
) -> tuple[Prompt, list[Content]]:
    if not loaded.language.chats:
        raise InputError(
            "messages need a chat template, and this model has none: ask /v1/completions"
        )
    return read_messages(given["messages"], limits)


def _completion(
    given: dict[str, Any], loaded: Loaded, limits: ImageLimits
) -> tuple[Prompt, list[Content]]:
    prompt = given["prompt"]
    return loaded.language.text_ids(prompt) if isinstance(prompt, str) else prompt, []


CHAT = Form(fields.CHAT, fields.NEUTRAL_CHAT, _chat)
COMPLETION = Form(fields.COMPLETION, fields.NEUTRAL_COMPLETION, _completion)
