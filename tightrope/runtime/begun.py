"""What the slots of a conversation hold of a prompt that goes on from it, told to plan by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from tightrope.plugins.slot_attention.policies import scoring
from tightrope.runtime.settings import Settings

Image = TypeVar("Image")


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """The part of a prompt that was read in earlier turns."""

    num_ids: int
    """Images as one each."""
    num_images: int
    read_as: frozenset[tuple[object, ...]]
    """How its images were read; empty without any."""
    scoring: bytes
    """Of the policy by which its slots were scored."""
    ordinal: int
    """Of the next token."""
    occupied: tuple[int, ...]
    """Slots of each layer, in the head that holds most."""

    def serves(self, settings: Settings) -> bool:
        """Whether a turn under these settings goes on from it, by the rule of `Conversation`."""
        scored = not settings.evicts or scoring(settings.policy) == self.scoring
        return scored and self.read_as <= {settings.read_as}


def begun_under(begun: Begun | None, settings: Settings) -> Begun | None:
    """What a turn under these settings goes on from; None: the prompt is read from its start."""
    return begun if begun is not None and begun.serves(settings) else None


def unread(images: Sequence[Image], begun: Begun | None, settings: Settings) -> Sequence[Image]:
    """Of a prompt's images, those that a turn under these settings reads."""
    found = begun_under(begun, settings)
    return images if found is None else images[found.num_images :]
