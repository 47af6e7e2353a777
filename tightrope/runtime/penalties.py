"""Making tokens more or less likely than the model has them: by what was said, or by wish.

In this order, as transformers has them: repetition, presence and frequency, bias.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from tightrope.arrays import Floats
from tightrope.checks import check_number, check_whole, shown
from tightrope.errors import InputError
from tightrope.runtime.options import Options

LEAST_REPETITION, MOST_REPETITION = 0.01, 100.0
MOST_PENALTY, MOST_BIAS = 2.0, 100.0
"""As OpenAI has them: a bias of 100 all but forces a token, -100 all but forbids it."""


class Penalties:
    """Changes the logits of rows that grow, each by its own tokens.

    repetition: of tokens of the prompt and the answer, a logit above 0 is divided by it and one
    below multiplied (CTRL, Keskar et al. 2019, arXiv:1909.05858, section 4.1, as transformers'
    RepetitionPenaltyLogitsProcessor has it).
    presence, frequency: taken off once, and once for each time, for tokens of the answer
    (OpenAI's formula).
    """

    def __init__(self, options: Options, vocabulary: int) -> None:
        """vocabulary: how many tokens there are; raises InputError for values out of range."""
        self._repetition = options.repetition_penalty
        self._presence, self._frequency = options.presence_penalty, options.frequency_penalty
        check_number(
            "repetition_penalty", self._repetition, least=LEAST_REPETITION, most=MOST_REPETITION
        )
        for name in ("presence_penalty", "frequency_penalty"):
            check_number(name, getattr(options, name), least=-MOST_PENALTY, most=MOST_PENALTY)
        bias = {} if options.logit_bias is None else options.logit_bias
        if not isinstance(bias, Mapping):
            raise InputError(f"logit_bias is {shown(bias)}; accepted: numbers by token id")
        for token, value in bias.items():
            check_whole("logit_bias", token, least=0, most=vocabulary - 1, unit="a token id")
            check_number("logit_bias", value, least=-MOST_BIAS, most=MOST_BIAS)
        self._biased = np.array(list(bias), np.int64)
        self._bias = np.array(list(bias.values()), np.float32)
        self._prompt: set[int] = set()
        self._rows: Sequence[Sequence[int]] = ()
        self._counts: list[Counter[int]] = []

    @property
    def change(self) -> bool:
        """Whether they change anything."""
        said = self._repetition != 1 or self._presence != 0 or self._frequency != 0
        return bool(said or len(self._bias))

    def watch(self, prompt: Sequence[int], rows: Sequence[Sequence[int]]) -> None:
        """Go by these tokens of the prompt, and by those that the rows will have."""
        self._prompt, self._rows = set(prompt), rows
        self._counts = [Counter[int]() for _ in rows]

    def __call__(self, logits: Floats) -> Floats:
        """Changed logits [n,vocab] of the rows, or [1,vocab] of those that all share."""
        changed: Floats = logits.copy()
        # Before their first token rows share one row of logits, and nothing was said in any.
        for row, said, counts in zip(changed, self._rows, self._counts, strict=False):
            counts.update(said[counts.total() :])
            self._repeat(row, counts)
            if counts and (self._presence or self._frequency):
                ids = np.fromiter(counts, np.int64, len(counts))
                times = np.fromiter(counts.values(), np.float32, len(counts))
                row[ids] -= np.float32(self._presence) + np.float32(self._frequency) * times
            row[self._biased] += self._bias
        return changed

    def _repeat(self, row: Floats, counts: Counter[int]) -> None:
        if self._repetition == 1:
            return
        before = self._prompt | counts.keys()
        ids = np.fromiter(before, np.int64, len(before))
        penalty, scores = np.float32(self._repetition), row[ids]
        row[ids] = np.where(scores < 0, scores * penalty, scores / penalty)
