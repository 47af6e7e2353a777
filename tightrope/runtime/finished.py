"""A finished request, as those are told of it who watch a model's requests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tightrope.runtime.answer import Answer
from tightrope.runtime.held import HeldImage
from tightrope.runtime.marks import Mark
from tightrope.runtime.options import Options, Prompt
from tightrope.runtime.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """What was asked, under which settings, and what came of it."""

    prompt: Prompt
    images: Sequence[HeldImage]
    new: Sequence[bool]
    """Which of the images the tower had to look at."""
    num_ids: int
    """Tokens of the prompt, images as one each."""
    marks: Sequence[Mark]
    """Where the prompt may be cut."""
    reused: tuple[int, ...]
    """Tokens before those marks up to which slots were kept from other requests."""
    wholes: tuple[int, ...]
    """Places, among the tokens, of images that no call may end inside."""
    options: Options
    settings: Settings
    answer: Answer
    waited_ms: float
    """For other requests, before it ran."""
    alone: bool
    """Whether it was no turn of a conversation, and chose its tokens by its options."""
    trial: bool
    """Whether nobody asked it: it warmed graphs up, or repeated another."""


Watcher = Callable[[Finished], None]
"""Called on the device's thread behind the last piece: what it does holds up the next request."""
