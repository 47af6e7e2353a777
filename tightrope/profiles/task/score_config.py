"""What a score asks; apart from it because `--help` has no need of numpy."""

from __future__ import annotations

from dataclasses import dataclass

from tightrope.checks import check_one_of, check_whole
from tightrope.configs import setting
from tightrope.point import OperatingPoint

THINKING = {"on": True, "off": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreConfig:
    """Which questions are asked, and how. Raises InputError for what cannot be."""

    point: OperatingPoint | None = None
    """What each request may spend; None: everything."""
    max_tokens: int = setting(256, "Longest answer.")
    thinking: str | None = setting(None, "Whether it thinks first; else the template decides.")
    """on: the model may think first; off: its turn is opened with an empty thought. None is the
    only choice for a chat template that does not know of thoughts."""
    types: tuple[str, ...] = setting((), "Only questions of these types.")
    limit: int | None = setting(None, "Only the first so many of them.")
    by: tuple[str, ...] = setting((), "Count by this field of info too.")
    seed: int = setting(0, "For selectors that draw.")
    """Answers are always the likeliest tokens."""

    def __post_init__(self) -> None:
        if self.thinking is not None:
            check_one_of("thinking", self.thinking, THINKING)
        if self.limit is not None:
            check_whole("limit", self.limit, least=1)
