"""How likely the model itself found the tokens of an answer.

Of its own distribution: before temperature, penalties, bias and what is left out in sampling.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tightrope.arrays import Floats
from tightrope.runtime.answer import Likely, TokenLogprob

LEAST = -9999.0
"""For what cannot be, as OpenAI has it: JSON knows no infinity."""


class Logprobs:
    """Those of one answer while it grows."""

    def __init__(self, top: int, text: Callable[[int], str]) -> None:
        """top: how many of the likeliest tokens are told beside the one that was taken.

        text: of one token.
        """
        self._top, self._text = top, text
        self.taken: list[TokenLogprob] = []
        self._given = 0

    def note(self, logits: Floats, token_id: int) -> None:
        """`token_id` was taken at these logits [vocab]."""
        largest = logits.max()
        with np.errstate(under="ignore"):
            total = largest + np.log(np.exp(logits - largest, dtype=np.float64).sum())
        top = min(self._top, len(logits) - 1)
        likeliest = np.argpartition(-logits, top)[:top]
        ordered = sorted(map(int, likeliest), key=lambda number: (-logits[number], number))
        told = [self._likely(number, float(logits[number] - total)) for number in ordered]
        taken = self._likely(token_id, float(logits[token_id] - total))
        self.taken.append(TokenLogprob(taken.token_id, taken.text, taken.logprob, tuple(told)))

    def fresh(self) -> tuple[TokenLogprob, ...]:
        """Those that were not handed out before."""
        before, self._given = self._given, len(self.taken)
        return tuple(self.taken[before:])

    def _likely(self, token_id: int, logprob: float) -> Likely:
        return Likely(token_id, self._text(token_id), max(logprob, LEAST))
