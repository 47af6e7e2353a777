"""What a board's heat and power may come to."""

from __future__ import annotations

from dataclasses import dataclass

from tightrope.checks import check_number
from tightrope.configs import setting
from tightrope.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """Limits of a board while it answers; raises InputError for those that nothing can mean."""

    max_temp: float | None = setting(
        None, "Degrees Celsius that the hottest zone is to stay below, by cheaper points."
    )
    max_watts: float | None = setting(
        None, "Watts that the board is to draw in the mean at most, by cheaper points."
    )

    def __post_init__(self) -> None:
        if self.max_temp is None and self.max_watts is None:
            raise InputError("a ceiling has no limit; accepted: max_temp or max_watts")
        if self.max_temp is not None:
            check_number("max_temp", self.max_temp, least=30, most=120)
        if self.max_watts is not None:
            check_number("max_watts", self.max_watts, least=1, most=1000)


def ceiling_of(max_temp: float | None, max_watts: float | None) -> Ceiling | None:
    """None where neither is limited."""
    if max_temp is None and max_watts is None:
        return None
    return Ceiling(max_temp=max_temp, max_watts=max_watts)
