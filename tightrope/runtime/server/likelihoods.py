"""Log probabilities as OpenAI's two interfaces write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tightrope.runtime.answer import Likely, TokenLogprob

PART_OF_A_CHARACTER = "\ufffd"


def of_chat(tokens: Sequence[TokenLogprob] | None) -> dict[str, Any] | None:
    """Beside a message or a delta; None where none were asked for or came."""
    if not tokens:
        return None
    content = [
        {**_entry(token), "top_logprobs": [_entry(one) for one in token.top]} for token in tokens
    ]
    return {"content": content, "refusal": None}


def of_completion(tokens: Sequence[TokenLogprob] | None, start: int) -> dict[str, Any] | None:
    """Beside a text that begins at character `start` of the answer."""
    if not tokens:
        return None
    offsets = []
    for token in tokens:
        offsets.append(start)
        start += len(token.text)
    return {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [_by_text(token) for token in tokens],
        "text_offset": offsets,
    }


def _entry(one: Likely) -> dict[str, Any]:
    whole = PART_OF_A_CHARACTER not in one.text
    return {
        "token": one.text,
        "logprob": one.logprob,
        "bytes": list(one.text.encode()) if whole else None,
    }


def _by_text(token: TokenLogprob) -> Mapping[str, float]:
    return {one.text: one.logprob for one in reversed(token.top)}  # of equal texts the likeliest
