"""How many tokens a request brings, known before anything runs."""

from __future__ import annotations

from dataclasses import dataclass

from tightrope.inputs.layout import visual_tokens
from tightrope.runtime.loaded import Loaded
from tightrope.runtime.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """Tokens of a prompt and its images."""

    unpruned: int
    """With all visual tokens and what stands between them."""
    length: int
    """That enter the language model."""
    available: int
    """Visual tokens of one image, V."""
    kept: int
    """Of these, what enters the language model."""
    visual: int
    """Of `length`, those that are visual."""
    inside: int
    """Visual tokens that are left behind the last stage of a schedule, over all images."""


def demand_of(loaded: Loaded, num_ids: int, num_images: int, settings: Settings) -> Demand:
    """Of `num_ids` ids, one of which stands for each of the images."""
    if loaded.vision is None or settings.resolution is None:
        return Demand(unpruned=num_ids, length=num_ids, available=0, kept=0, visual=0, inside=0)
    layout = loaded.vision.tower.layout(settings.resolution)
    available = visual_tokens(layout)
    kept = settings.kept("tower", available, available)
    unpruned = num_ids + num_images * (sum(map(len, layout)) - 1)
    return Demand(
        unpruned=unpruned,
        length=unpruned - num_images * (available - kept),
        available=available,
        kept=kept,
        visual=num_images * kept,
        inside=num_images * settings.kept("inside", available, kept),
    )
