"""Right answers counted, with how far the count can be trusted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from typing import Any

Z95 = 1.959964
"""Standard deviations on either side of the mean that hold 95 % of a normal distribution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How many of some questions were answered rightly."""

    n: int
    """Questions that have a reference."""
    right: float
    """A sum: an answer that people agree with in part counts in part."""

    @property
    def accuracy(self) -> float | None:
        """Share of right answers; None of no questions."""
        return self.right / self.n if self.n else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Wilson's 95 % interval of the accuracy; None of no questions.

        For answers that count in part it is too wide rather than too narrow: they spread less.
        """
        if not self.n:
            return None
        share, weight = self.right / self.n, Z95**2 / self.n
        middle = (share + weight / 2) / (1 + weight)
        half = sqrt(max(0.0, share * (1 - share)) * weight + weight**2 / 4) / (1 + weight)
        return max(0.0, middle - half), min(1.0, middle + half)

    def to_dict(self) -> dict[str, Any]:
        """The tally as JSON-ready values."""
        return asdict(self) | {"accuracy": self.accuracy, "interval": self.interval}


def tally(rights: Iterable[float | None]) -> Tally:
    """rights: how right each answer is, 0..1; None, a question without a reference, is left out."""
    known = [right for right in rights if right is not None]
    return Tally(n=len(known), right=sum(known, 0.0))


def tallies(names: Sequence[str | None], rights: Sequence[float | None]) -> dict[str, Tally]:
    """A tally for each name, in the order in which they come up; None belongs to none."""
    groups: dict[str, list[float | None]] = defaultdict(list)
    for name, right in zip(names, rights, strict=True):
        if name is not None:
            groups[name].append(right)
    return {name: tally(group) for name, group in groups.items()}
