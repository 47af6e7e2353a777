"""What ends a generation, or makes it say something: one control, one rule.

After every token each control sees every row that goes on, in order, and the first that wants
something gets it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tightrope.runtime.answer import FinishReason, Stop
from tightrope.runtime.cancel import Cancel


@dataclass(frozen=True, slots=True)
class State:
    """What a control is told of a row after its newest token."""

    token_ids: list[int]
    """All of the answer; the last one is the newest."""
    stopped_by: str | None
    """The stop string that was completed, if any."""
    thinking: int | None
    """Tokens inside thoughts so far; None where the newest token is in none."""
    forcing: bool
    """Whether tokens that were forced are still to come."""
    room: int
    """Tokens for which there is a slot; as many as one likes where slots are given up."""


@dataclass(frozen=True, slots=True)
class Force:
    """The row's next tokens are these."""

    token_ids: tuple[int, ...]
    shortens: bool = False
    """Whether the answer, complete as it may be, then counts as cut short by the deadline."""


@dataclass(frozen=True, slots=True)
class End:
    """The row's answer is finished."""

    reason: FinishReason
    stop: Stop | None = None
    """What the model wrote that ended it."""


@dataclass(frozen=True, slots=True)
class Draft:
    """Find out what the answer were if the row's next tokens were these, and go on without them.

    It is shown if the deadline ends the row inside its thought. Only a row of its own is asked.
    """

    token_ids: tuple[int, ...]
    most: int
    """Tokens of the answer behind them."""
    ends: frozenset[int]
    """Tokens with which it is complete."""
    late: Callable[[], bool]
    """Asked after each token: whether to give it up."""


Control = Callable[[State], Force | End | Draft | None]


def end_tokens(texts: Mapping[int, str]) -> Control:
    """The model said that it is done. texts: of the tokens that say so, by id."""
    ends = {number: End("stop", Stop(text, number)) for number, text in texts.items()}
    return lambda state: ends.get(state.token_ids[-1])


def stop_strings() -> Control:
    """A string that ends the answer was completed."""

    def control(state: State) -> End | None:
        return None if state.stopped_by is None else End("stop", Stop(state.stopped_by))

    return control


def most_tokens(count: int) -> Control:
    """The caller's own limit."""
    full = End("length")
    return lambda state: full if len(state.token_ids) >= count else None


def thinking_cap(count: int, close: tuple[int, ...]) -> Control:
    """Close a thought after `count` tokens (budget forcing, arXiv:2501.19393).

    close: what says so in the model's own words.
    """
    closed = Force(close)

    def control(state: State) -> Force | None:
        if state.thinking is None or state.thinking < count or state.forcing:
            return None
        return closed

    return control


def cancelled(cancel: Cancel) -> Control:
    """Somebody asked."""
    return lambda state: None if cancel.reason is None else End(cancel.reason)


def slots_full() -> Control:
    """The next token would find no slot."""
    full = End("length")
    return lambda state: full if state.room < 1 else None
