"""Right answers counted, with how far the count can be trusted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tightrope.paired import interval95


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
        """Wilson's 95 % interval of the accuracy; None of no questions."""
        return interval95(self.right, self.n) if self.n else None

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
