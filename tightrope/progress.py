"""How long work says how far it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, float], None]
"""Called with what is being done and the share that is done, 0 to 1."""


def silent(what: str, share: float) -> None:
    """Tells nobody; the default of whatever reports progress."""


def part(progress: Progress, start: float, end: float) -> Progress:
    """Progress of one part of the work, which reaches from `start` to `end` of the whole."""
    return lambda what, share: progress(what, start + share * (end - start))
