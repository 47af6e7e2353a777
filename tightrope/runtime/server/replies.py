"""Answers as OpenAI's objects, whole or in events; what is ours stands under `tightrope`."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tightrope.runtime.answer import Answer, FinishReason, Sample
from tightrope.runtime.server.ask import Asked

Kind = Literal["chat", "completion"]
_FINISHED: Mapping[FinishReason, str] = {
    "stop": "stop",
    "length": "length",
    "deadline": "length",
    "cancelled": "length",
}
_OURS = ("finish_reason", "stop", "usage", "timings", "point", "plan", "deadline_met", "backend")
_PREFIX = {"chat": "chatcmpl", "completion": "cmpl"}
_OBJECT = {"chat": "chat.completion", "completion": "text_completion"}
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the objects of one reply share."""

    kind: Kind
    asked: Asked
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, answer: Answer) -> dict[str, Any]:
        """The reply in one piece."""
        choices = [self._choice(i, sample) for i, sample in enumerate(_samples(answer))]
        more = {"usage": usage(answer), "tightrope": ours(answer, self.asked)}
        return {**self._head(""), "choices": choices, **more}

    def begin(self) -> bytes:
        """The first event: who speaks."""
        return self._events([self._delta(i, role=True) for i in range(self.asked.options.n)])

    def piece(self, text: str) -> bytes:
        """An event with more of the first answer's text."""
        return self._events([self._delta(0, text)])

    def end(self, answer: Answer) -> bytes:
        """The last events: the other answers' texts, why they ended, what it took."""
        samples = _samples(answer)
        texts = [self._delta(i, sample.text) for i, sample in enumerate(samples) if i]
        ends = [self._delta(i, end=sample.finish_reason) for i, sample in enumerate(samples)]
        told = {"tightrope": ours(answer, self.asked)}
        last = event({**self._head(".chunk"), "choices": ends, **told})
        counted = b""
        if self.asked.include_usage:
            counted = event({**self._head(".chunk"), "choices": [], "usage": usage(answer)})
        return self._events(texts) + last + counted + DONE

    def _events(self, choices: list[dict[str, Any]]) -> bytes:
        return event({**self._head(".chunk"), "choices": choices}) if choices else b""

    def _head(self, suffix: str) -> dict[str, Any]:
        chat = self.kind == "chat"
        return {
            "id": f"{_PREFIX[self.kind]}-{self.id}",
            "object": _OBJECT[self.kind] + (suffix if chat else ""),
            "created": self.created,
            "model": self.asked.model,
        }

    def _choice(self, index: int, sample: Sample) -> dict[str, Any]:
        said: dict[str, Any] = {"text": sample.text}
        if self.kind == "chat":
            said = {"message": {"role": "assistant", "content": sample.text, "refusal": None}}
        reason = _FINISHED[sample.finish_reason]
        return {"index": index, **said, "logprobs": None, "finish_reason": reason}

    def _delta(
        self, index: int, text: str = "", *, role: bool = False, end: FinishReason | None = None
    ) -> dict[str, Any]:
        said: dict[str, Any] = {"text": text}
        if self.kind == "chat":
            delta = {"role": "assistant", "content": ""} if role else {"content": text}
            said = {"delta": {} if end else delta}
        reason = None if end is None else _FINISHED[end]
        return {"index": index, **said, "logprobs": None, "finish_reason": reason}


def event(value: Mapping[str, Any]) -> bytes:
    """One server-sent event."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return f"data: {text}\n\n".encode()


def usage(answer: Answer) -> dict[str, Any]:
    """Tokens as OpenAI counts them."""
    used = answer.usage
    return {
        "prompt_tokens": used.prompt_tokens,
        "completion_tokens": used.completion_tokens,
        "total_tokens": used.prompt_tokens + used.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": used.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": used.thinking_tokens},
    }


def ours(answer: Answer, asked: Asked) -> dict[str, Any]:
    """What an answer tells beside its text, by the names of `Answer.to_dict`."""
    told = answer.to_dict()
    values = {name: told[name] for name in _OURS}
    return {"schema": told["schema"], **values, "seed": asked.options.seed, "notes": told["notes"]}


def _samples(answer: Answer) -> tuple[Sample, ...]:
    if answer.samples is not None:
        return answer.samples
    return (
        Sample(
            text=answer.text,
            token_ids=answer.token_ids,
            finish_reason=answer.finish_reason,
            stop=answer.stop,
        ),
    )
