"""Logits to tokens as a request asks: penalties first, then sampling."""

from __future__ import annotations

from collections.abc import Sequence

from tightrope.arrays import Indices
from tightrope.runtime.likeliest import Logits, whole
from tightrope.runtime.options import Options
from tightrope.runtime.penalties import Penalties
from tightrope.runtime.sampling import Sampler


class Chooser:
    """Chooses a token for each row of a request."""

    def __init__(self, options: Options, vocabulary: int) -> None:
        """vocabulary: how many tokens there are; raises InputError for values out of range."""
        self._penalties = Penalties(options, vocabulary)
        self._sampler = Sampler(
            options.temperature,
            options.top_p,
            options.seed,
            options.n,
            options.top_k,
            options.min_p,
        )

    def watch(self, prompt: Sequence[int], rows: Sequence[Sequence[int]]) -> None:
        """Go by these tokens of the prompt, and by those that the rows will have."""
        self._penalties.watch(prompt, rows)

    def __call__(self, logits: Logits) -> Indices:
        """Token ids [n] of logits [n,vocab], or of [1,vocab] that all rows share."""
        changes = self._penalties.change
        return self._sampler(self._penalties(whole(logits)) if changes else logits)
