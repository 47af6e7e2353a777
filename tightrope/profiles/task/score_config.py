"""What a score asks; apart from it because `--help` has no need of numpy."""

from __future__ import annotations

from dataclasses import dataclass

from tightrope.checks import check_whole
from tightrope.configs import setting
from tightrope.point import OperatingPoint


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreConfig:
    """Which questions are asked, and how. Raises InputError for what cannot be."""

    point: OperatingPoint | None = None
    """What each request may spend; None: everything."""
    max_tokens: int = setting(256, "Longest answer.")
    thinking: bool | None = None
    """As for `generate`."""
    types: tuple[str, ...] = setting((), "Only questions of these types.")
    limit: int | None = setting(None, "Only the first so many of them.")
    by: tuple[str, ...] = setting((), "Count by this field of info too.")
    seed: int = setting(0, "For selectors that draw.")
    """Answers are always the likeliest tokens."""

    def __post_init__(self) -> None:
        if self.limit is not None:
            check_whole("limit", self.limit, least=1)
