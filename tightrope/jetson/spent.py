"""What a stretch of time took of a board, as an answer carries it."""

from __future__ import annotations

from dataclasses import dataclass

SHARED = "other requests ran meanwhile"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What a stretch of time took of a board, and what the board did meanwhile."""

    energy_j: float | None
    """None: not measured; `why` says why."""
    token_j: float | None
    """Of each token behind the first; None: not measured."""
    source: str | None
    """What measured it, and of what: "INA3221 VDD_IN"."""
    why: str | None = None
    """Why energy is not told, such as "too short to measure"."""
    hottest_c: float | None = None
    throttled: tuple[str, ...] = ()
    """What held the board back meanwhile, such as "gpu-throttle-alert"."""
    over_current: int = 0
    """Events meanwhile."""

    @property
    def held_back(self) -> bool:
        """Whether it may have taken longer than it does on a board that is left alone."""
        return bool(self.throttled or self.over_current)
