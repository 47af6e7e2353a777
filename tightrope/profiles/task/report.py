"""What a score found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tightrope.point import OperatingPoint
from tightrope.profiles.task.tally import Tally
from tightrope.schemas import versioned


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What became of one question."""

    id: str
    text: str
    """All that the model said, its thought included."""
    right: float | None
    """0..1; None where the task has no reference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Right answers and what they cost; means are over all questions that were asked."""

    overall: Tally
    types: dict[str, Tally]
    """By type, in the order in which the task has them."""
    by: dict[str, dict[str, Tally]]
    """The same by the values of each field asked for; questions without it are left out."""
    without_reference: int
    """Questions that were asked but cannot be right or wrong; no tally counts them."""
    visual_tokens_kept: float
    prompt_tokens: float
    """Of the whole prompt, its images unpruned."""
    completion_tokens: float
    wall_s: float
    """From the first question to the last answer."""
    finish_reasons: dict[str, float]
    """Share of the answers that ended for each reason."""
    point: OperatingPoint
    """What was spent, everything that was left open resolved."""
    backend: str
    records: tuple[Record, ...]
    """In the task's order."""

    def to_dict(self, records: bool = False) -> dict[str, Any]:
        """The report as JSON-ready values with a schema number; records only if asked for."""
        values = asdict(self) | {
            "overall": self.overall.to_dict(),
            "types": {name: tally.to_dict() for name, tally in self.types.items()},
            "by": {
                field: {value: tally.to_dict() for value, tally in tallies.items()}
                for field, tallies in self.by.items()
            },
        }
        if not records:
            del values["records"]
        return versioned("score", values)
