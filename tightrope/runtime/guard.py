"""Keeping a deadline while decoding: a control that looks at the clock after every token.

    time  |----prefill----|---thought---|close|answer|  deadline
                                        ^ closed here: what is left is the reserve

A thought is closed when what is left is just enough for its answer: that answer is the best that
was to be had in time. Where not even the next token would come in time, generation ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from tightrope.runtime.controls import End, Force, State

STEPS = 16
"""Newest steps whose mean is the time of a token; clocks may throttle while one answer grows."""
LEAST_STEPS = 4
"""Below so many the prediction counts, where it is slower."""
MARGIN = 1.1
"""What is held back, over what is expected to be needed."""
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
    ) -> None:
        """clock: seconds; deadline: by it. token_s: predicted time of a token.

        answer_tokens: that an answer behind a thought takes. close: what closes a thought; None
        for a model that has none.
        """
        self._clock, self._deadline = clock, deadline - HANDOVER_S
        self._predicted, self._steps = token_s, deque[float](maxlen=STEPS)
        self._close = None if close is None else Force(close, shortens=True)
        # One more, because the next look at the clock comes a token later.
        self._reserve = answer_tokens + 1 + (0 if close is None else len(close))
        self._end = End("deadline")
        self._length, self._last = 0, 0.0

    def hopeless(self, needed_s: float = 0.0) -> bool:
        """Whether nothing that takes `needed_s` more can be there in time."""
        return self._clock() + needed_s >= self._deadline

    def __call__(self, state: State) -> Force | End | None:
        left = self._deadline - self._now(state)
        token = self._token_s() * MARGIN
        if left < token:
            return self._end
        thinking = state.thinking is not None and not state.forcing
        if self._close is not None and thinking and left < self._reserve * token:
            return self._close
        return None

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
