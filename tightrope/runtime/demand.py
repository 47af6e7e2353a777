"""How many tokens a request brings, known before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tightrope.inputs.layout import Size, visual_tokens
from tightrope.runtime.loaded import Loaded
from tightrope.runtime.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """Tokens of a prompt and its images."""

    unpruned: int
    """With all visual tokens and what stands between them."""
    length: int
    """That enter the language model."""
    available: tuple[int, ...]
    """Visual tokens of each image, V."""
    kept: tuple[int, ...]
    """Of these, what enters the language model."""
    inside: int
    """Visual tokens that are left behind the last stage of a schedule, over all images."""

    @property
    def visual(self) -> int:
        """Of `length`, those that are visual."""
        return sum(self.kept)


def demand_of(loaded: Loaded, num_ids: int, images: Sequence[Size], settings: Settings) -> Demand:
    """Of `num_ids` ids, one of which stands for each of the images.

    Raises InputError for an image that the tower does not take.
    """
    if loaded.vision is None or settings.resolution is None:
        return Demand(unpruned=num_ids, length=num_ids, available=(), kept=(), inside=0)
    tower = loaded.vision.tower
    layouts = [tower.layout(size, settings.resolution) for size in images]
    available = tuple(map(visual_tokens, layouts))
    kept = tuple(settings.kept("tower", count, count) for count in available)
    unpruned = num_ids + sum(sum(map(len, layout)) - 1 for layout in layouts)
    entered = zip(available, kept, strict=True)
    return Demand(
        unpruned=unpruned,
        length=unpruned - sum(available) + sum(kept),
        available=available,
        kept=kept,
        inside=sum(settings.kept("inside", count, left) for count, left in entered),
    )
