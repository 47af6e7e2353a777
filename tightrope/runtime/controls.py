"""What ends a generation, or makes it say something: one control, one rule.

After every token each control sees every row that goes on, in order, and the first that wants
something gets it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tightrope.runtime.answer import FinishReason
from tightrope.runtime.cancel import Cancel


@dataclass(frozen=True, slots=True)
class State:
    """What a control is told of a row after its newest token."""

    token_ids: list[int]
    """All of the answer; the last one is the newest."""
    stopped: bool
    """Whether a stop string was completed."""
    room: int
    """Tokens for which there is a slot; as many as one likes where slots are given up."""


@dataclass(frozen=True, slots=True)
class Force:
    """The row's next tokens are these."""

    token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class End:
    """The row's answer is finished."""

    reason: FinishReason


Control = Callable[[State], Force | End | None]


def end_tokens(ids: frozenset[int]) -> Control:
    """The model said that it is done."""
    stop = End("stop")
    return lambda state: stop if state.token_ids[-1] in ids else None


def stop_strings() -> Control:
    """A string that ends the answer was completed."""
    stop = End("stop")
    return lambda state: stop if state.stopped else None


def most_tokens(count: int) -> Control:
    """The caller's own limit."""
    full = End("length")
    return lambda state: full if len(state.token_ids) >= count else None


def cancelled(cancel: Cancel) -> Control:
    """Somebody asked."""
    return lambda state: None if cancel.reason is None else End(cancel.reason)


def slots_full() -> Control:
    """The next token would find no slot."""
    full = End("length")
    return lambda state: full if state.room < 1 else None
