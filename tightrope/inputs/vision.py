"""What a bundle says of its vision tower."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionInfo:
    """What the host must know of the tower; `sizes` is read by the tower's own file alone."""

    kind: str
    """Names the file in `inputs/prepare/` that knows the rest."""
    image_token_id: int
    image_token: str
    resolutions: tuple[int, ...]
    """Sides in pixels, the tower's own first."""
    signals: tuple[str, ...]
    """What the graph hands to selectors, in the order of its outputs."""
    sizes: dict[str, int]
