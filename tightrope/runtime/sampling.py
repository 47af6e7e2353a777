"""Logits to tokens: greedy, or by temperature and nucleus, each row from its own random stream."""

from __future__ import annotations

import math

import numpy as np

from tightrope.arrays import Floats, Indices
from tightrope.checks import check_number, check_whole, shown
from tightrope.errors import BackendError, InputError
from tightrope.runtime.likeliest import Likeliest, Logits, whole

MOST_ANSWERS = 128
"""Of one request: each has slots of its own."""

_FLOAT32 = np.finfo(np.float32)
_FIRST_GUESS = 1024
"""Tokens sorted at first; the nucleus of a trained model is nearly always among them."""
_SPAN = 512
"""Neighbouring tokens whose weights are summed first, so that few sums are looked through."""


class Sampler:
    """Draws one token per row and call.

    Row i draws from a generator seeded with (seed, i): its tokens depend on its logits alone, not
    on how many rows there are or what the others draw. Every call draws once per row.
    Temperature 0 takes the most likely token, the lower id of two equal ones.

    In the order of transformers: top_k (Fan et al. 2018, arXiv:1805.04833, those that tie with the
    last one stay), top_p (nucleus: Holtzman et al. 2020, arXiv:1904.09751, section 3.1), min_p
    (Nguyen et al. 2024, arXiv:2407.01082).
    """

    def __init__(
        self,
        temperature: float,
        top_p: float,
        seed: int,
        n: int = 1,
        top_k: int = 0,
        min_p: float = 0.0,
    ) -> None:
        """Raises InputError for values out of range, naming them."""
        if not (_is_number(temperature) and 0 <= temperature < math.inf):
            raise InputError(f"temperature is {shown(temperature)}; accepted: 0 (greedy) or more")
        if not (_is_number(top_p) and 0 < top_p <= 1):
            raise InputError(f"top_p is {shown(top_p)}; accepted: above 0, up to 1 (everything)")
        check_whole("top_k", top_k, least=0, unit="a whole number of tokens, 0 for all")
        check_number("min_p", min_p, least=0.0, most=1.0)
        check_whole("seed", seed, least=0)
        check_whole("n", n, least=1, most=MOST_ANSWERS, unit="a whole number of answers")
        self._greedy = temperature == 0
        # Within float32, so that no division by it makes a NaN of a logit of 0 or -inf.
        smallest, largest = (float(bound) for bound in (_FLOAT32.tiny, _FLOAT32.max))
        self._temperature = np.float32(min(max(temperature, smallest), largest))
        self._top_p, self._top_k, self._min_p = float(top_p), int(top_k), float(min_p)
        self._generators = [np.random.default_rng([seed, row]) for row in range(n)]
        self._scratch: Floats = np.empty((0, 0), np.float32)

    def __call__(self, logits: Logits) -> Indices:
        """Token ids [n] of logits [n, vocab], or of [1, vocab] that all rows share.

        From the likeliest of them come the very tokens that all of them give; where they do not
        tell, all are brought. Raises BackendError where a row has no finite largest logit.
        """
        if isinstance(logits, Likeliest):
            chosen = self._of_likeliest(logits)
            return self(whole(logits)) if chosen is None else chosen
        n = len(self._generators)
        assert logits.ndim == 2 and logits.shape[0] in (1, n), f"{logits.shape} for {n} rows"
        best = logits.argmax(axis=1)  # also of a NaN
        largest = logits[np.arange(len(best)), best][:, None]
        if not np.isfinite(largest).all():
            raise BackendError(
                "the model returned logits that are not numbers or infinite; in fp16 this is an "
                "overflow: export with precision fp32 to see whether it stays"
            )
        if self._greedy:
            return np.broadcast_to(best, n).astype(np.int64)
        if self._scratch.shape != logits.shape:  # fresh memory costs as much as the arithmetic
            self._scratch = np.empty(logits.shape, np.float32)
        weights = self._weights(logits, largest, self._scratch)
        rows = np.broadcast_to(weights, (n, logits.shape[1]))
        drawn = zip(rows, self._generators, strict=True)
        return np.array([self._draw(row, generator.random()) for row, generator in drawn], np.int64)

    def _of_likeliest(self, given: Likeliest) -> Indices | None:
        """The same from some of the logits; None where others may matter."""
        largest = given.logits.max(1)
        if not np.isfinite(largest).all() or (largest <= given.bound).any():
            return None
        if self._greedy:
            best = given.logits == largest[:, None]
            none = np.iinfo(given.token_ids.dtype).max
            ids: Indices = np.where(best, given.token_ids, none).min(1).astype(np.int64)
            return ids
        if not 0 < self._top_k <= given.logits.shape[1]:
            return None
        weights = self._weights(given.logits, largest[:, None])
        kth = np.partition(weights, -self._top_k, 1)[:, -self._top_k]
        if (kth <= self._weights(given.bound, largest)).any():
            return None
        ordered = np.argsort(given.token_ids, 1, kind="stable")
        drawn = [
            ids[order][self._draw(row[order], generator.random())]
            for ids, row, order, generator in zip(
                given.token_ids, weights, ordered, self._generators, strict=True
            )
        ]
        return np.array(drawn, np.int64)

    def _weights(self, logits: Floats, largest: Floats, out: Floats | None = None) -> Floats:
        """exp((logits - largest) / temperature), in `out` if it is given."""
        # Underflow to 0 and overflow to -inf are both what an unlikely token should get.
        with np.errstate(over="ignore", under="ignore"):
            weights: Floats = np.subtract(logits, largest, out=out)
            if self._temperature != 1:
                np.divide(weights, self._temperature, out=weights)
            return np.exp(weights, out=weights)

    def _draw(self, weights: Floats, uniform: float) -> int:
        """The token at `uniform`, 0 <= uniform < 1, of the distribution's inverse."""
        if not 0 < self._top_k < len(weights):
            return self._drawn(weights, uniform)
        # What is left out is not summed: from fewer tokens comes the same to the last bit.
        likely = np.flatnonzero(weights >= _kth_largest(weights, self._top_k))
        return int(likely[self._drawn(weights[likely], uniform)])

    def _drawn(self, weights: Floats, uniform: float) -> int:
        """The same without top_k."""
        if self._top_p == 1:
            if self._min_p:  # the likeliest one weighs 1
                weights = np.where(weights >= self._min_p, weights, 0)
            return index_at(weights, uniform)
        nucleus = _nucleus(weights, self._top_p)
        nucleus = nucleus[weights[nucleus] >= self._min_p]
        return int(nucleus[index_at(weights[nucleus], uniform)])


def _nucleus(weights: Floats, top_p: float) -> Indices:
    """The fewest most likely tokens that together have `top_p` of the weight, likeliest first.

    weights: [vocab], not normalised. Of equal ones the lower id comes first.
    """
    wanted = top_p * float(weights.sum(dtype=np.float64))
    guess = _FIRST_GUESS
    while True:
        if guess < len(weights):
            # All that tie with the last one come too, so that ids decide, not the partition.
            likely = np.flatnonzero(weights >= _kth_largest(weights, guess))
        else:
            likely = np.arange(len(weights))
        ordered = likely[np.argsort(-weights[likely], kind="stable")]
        reached = np.cumsum(weights[ordered], dtype=np.float64)
        count = int(np.searchsorted(reached, wanted)) + 1
        if count <= len(ordered) or len(ordered) == len(weights):
            return ordered[:count]
        guess *= 8


def _kth_largest(weights: Floats, k: int) -> float:
    return float(np.partition(weights, len(weights) - k)[len(weights) - k])


def index_at(weights: Floats, uniform: float) -> int:
    """The index whose share of the summed weights holds `uniform`; never one of weight 0."""
    even = len(weights) - len(weights) % _SPAN
    sums = weights[:even].reshape(-1, _SPAN).sum(axis=1)
    reached = np.cumsum(np.append(sums, weights[even:].sum()), dtype=np.float64)
    wanted = uniform * reached[-1]
    span = int(np.searchsorted(reached, wanted, side="right"))
    start = span * _SPAN
    inside = weights[start : start + _SPAN]
    rest = wanted - (reached[span - 1] if span else 0)
    place = int(np.searchsorted(np.cumsum(inside, dtype=np.float64), rest, side="right"))
    # Sums are rounded: past the end of a span lies what its last token should get.
    return start + min(place, int(np.flatnonzero(inside)[-1]))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and type(value) is not bool
