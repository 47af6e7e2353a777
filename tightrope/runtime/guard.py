"""Keeping a deadline while decoding: a control that looks at the clock after every token.

    time  |----prefill----|---thought---|close|answer|  deadline
                                        ^ closed here: what is left is the reserve

Once, halfway to where the thought would be closed, the answer that it leads to so far is kept where
that costs little of the time: it is shown if the machine then stalls inside the thought.

A thought is closed when what is left is just enough for its answer: that answer is the best that
was to be had in time. Where not even the next token would come in time, generation ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from tightrope.runtime.controls import Draft, End, Force, State

STEPS = 16
"""Newest steps whose mean is the time of a token; clocks may throttle while one answer grows."""
LEAST_STEPS = 4
"""Below so many the prediction counts, where it is slower."""
MARGIN = 1.1
"""What is held back, over what is expected to be needed."""
DRAFT_SHARE = 0.1
"""Of the time that is left for a thought, what an answer kept on the way may take."""
HANDOVER_S = 0.001
"""From the last token to whoever asked."""


class Guard:
    """The deadline of one request and of all its rows."""

    def __init__(
        self,
        clock: Callable[[], float],
        deadline: float,
        *,
        token_s: float,
        answer_tokens: int,
        close: tuple[int, ...] | None,
        ends: frozenset[int] | None = None,
    ) -> None:
        """clock: seconds; deadline: by it. token_s: predicted time of a token.

        answer_tokens: that an answer behind a thought takes. close: what closes a thought; None
        for a model that has none. ends: tokens that complete an answer; None where none is kept on
        the way, as where several grow together.
        """
        self._clock, self._deadline = clock, deadline - HANDOVER_S
        self._predicted, self._steps = token_s, deque[float](maxlen=STEPS)
        self._close = None if close is None else Force(close, shortens=True)
        # One more, because the next look at the clock comes a token later.
        self._reserve = answer_tokens + 1 + (0 if close is None else len(close))
        self._end = End("deadline")
        self._answer_tokens, self._ends = answer_tokens, ends
        self._half: float | None = None
        """When to keep an answer, in seconds of the clock."""
        self._length, self._last = 0, 0.0

    def pause(self, seconds: float) -> None:
        """The rows stood still for so long: that says nothing of the time of a token."""
        self._last += seconds

    def hopeless(self, needed_s: float = 0.0) -> bool:
        """Whether nothing that takes `needed_s` more can be there in time."""
        return self._clock() + needed_s >= self._deadline

    def __call__(self, state: State) -> Force | End | Draft | None:
        left = self._deadline - self._now(state)
        token = self._token_s() * MARGIN
        if left < token:
            return self._end
        thinking = state.thinking is not None and not state.forcing
        if self._close is not None and thinking and left < self._reserve * token:
            return self._close
        if thinking and self._draft_is_due(state, left - self._reserve * token, token):
            return self._draft()
        return None

    def _draft_is_due(self, state: State, left: float, token: float) -> bool:
        """left: seconds for the thought."""
        if self._close is None or self._ends is None:
            return False
        if self._half is None:
            self._half = self._last + left / 2
        cheap = self._reserve * token < DRAFT_SHARE * left
        return self._last >= self._half and cheap and state.room > self._reserve

    def _draft(self) -> Draft:
        assert self._close is not None and self._ends is not None
        ends, self._ends = self._ends, None  # once
        self._length = 0  # the next step is none to go by
        token = self._token_s() * MARGIN
        return Draft(
            self._close.token_ids,
            self._answer_tokens,
            ends,
            lambda: self.hopeless(self._reserve * token),
        )

    def _now(self, state: State) -> float:
        """The clock, read once a step: rows that grow together see the same."""
        if steps := len(state.token_ids) - self._length:
            now = self._clock()
            if self._length:  # another control may have been first meanwhile
                self._steps.append((now - self._last) / steps)
            self._length, self._last = len(state.token_ids), now
        return self._last

    def _token_s(self) -> float:
        if not self._steps:
            return self._predicted
        mean = sum(self._steps) / len(self._steps)
        return mean if len(self._steps) >= LEAST_STEPS else max(mean, self._predicted)
