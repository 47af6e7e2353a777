"""Answers as OpenAI's objects, whole or in events; what is ours stands under `tightrope`."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tightrope.runtime.answer import Answer, FinishReason, Piece, Sample, TokenLogprob
from tightrope.runtime.server.ask import Asked
from tightrope.runtime.server.likelihoods import of_chat, of_completion

Kind = Literal["chat", "completion"]
_FINISHED: Mapping[FinishReason, str] = {
    "stop": "stop",
    "length": "length",
    "deadline": "length",
    "cancelled": "length",
}
_OURS = (
    *("finish_reason", "stop", "usage", "timings", "point", "plan", "prediction", "deadline_met"),
    *("backend", "spent"),
)
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

    def piece(self, piece: Piece, said: int = 0) -> bytes:
        """An event with more of the first answer's text; said: characters of it before."""
        return self._events([self._delta(0, piece.text, self._likely(piece.logprobs, said))])

    def end(self, last: Piece, answer: Answer, said: int = 0) -> bytes:
        """The last events: the other answers' texts, why they ended, what it took."""
        samples = _samples(answer)
        texts = [
            self._delta(i, sample.text, self._likely(sample.logprobs, 0))
            for i, sample in enumerate(samples)
            if i
        ]
        if last.logprobs:  # of tokens that have no text of their own, such as the end
            texts.insert(0, self._delta(0, "", self._likely(last.logprobs, said)))
        ends = [self._delta(i, end=sample.finish_reason) for i, sample in enumerate(samples)]
        told = {"tightrope": ours(answer, self.asked)}
        ended = event({**self._head(".chunk"), "choices": ends, **told})
        counted = b""
        if self.asked.include_usage:
            counted = event({**self._head(".chunk"), "choices": [], "usage": usage(answer)})
        return self._events(texts) + ended + counted + DONE

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
        likely = self._likely(sample.logprobs, 0)
        return {"index": index, **said, "logprobs": likely, "finish_reason": reason}

    def _likely(self, tokens: Sequence[TokenLogprob] | None, said: int) -> dict[str, Any] | None:
        return of_chat(tokens) if self.kind == "chat" else of_completion(tokens, said)

    def _delta(
        self,
        index: int,
        text: str = "",
        likely: dict[str, Any] | None = None,
        *,
        role: bool = False,
        end: FinishReason | None = None,
    ) -> dict[str, Any]:
        said: dict[str, Any] = {"text": text}
        if self.kind == "chat":
            delta = {"role": "assistant", "content": ""} if role else {"content": text}
            said = {"delta": {} if end else delta}
        reason = None if end is None else _FINISHED[end]
        return {"index": index, **said, "logprobs": likely, "finish_reason": reason}


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
            logprobs=answer.logprobs,
        ),
    )
