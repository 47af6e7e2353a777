"""A request's prompt as its settings write it, and what is made of it before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tightrope.runtime.conversation import Conversation, Key
from tightrope.runtime.frames import prompt_ids
from tightrope.runtime.held import HeldImage
from tightrope.runtime.loaded import Loaded
from tightrope.runtime.marks import Mark
from tightrope.runtime.options import ImageSource, Options, Prompt
from tightrope.runtime.settings import Settings
from tightrope.runtime.stopwatch import Stopwatch
from tightrope.runtime.vision import Prepared


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What of a request depends on what it spends, ready to be read."""

    token_ids: list[int]
    """Images as one each."""
    marks: tuple[Mark, ...]
    keys: list[Key]
    """The prompt's tokens as a conversation knows them."""
    prepared: Prepared
    """The tower's inputs of images that neither it nor the conversation has seen."""


def write(
    loaded: Loaded,
    prompt: Prompt,
    sources: Sequence[ImageSource],
    images: Sequence[HeldImage],
    options: Options,
    settings: Settings,
    conversation: Conversation,
    watch: Stopwatch,
) -> Written:
    """The prompt, in which the point may say whether to think, and what the tower reads.

    images: the sources, held.
    """
    language, cap = loaded.language, settings.point.thinking_tokens
    token_ids = prompt_ids(language, prompt, sources, options.thinking, cap)
    return Written(
        token_ids=token_ids,
        marks=language.marks(prompt, token_ids, len(images), options.thinking, cap),
        keys=_keys(token_ids, language.placeholder, images, settings),
        prepared=_prepared(loaded, images, settings, conversation, watch),
    )


def _keys(
    token_ids: list[int],
    placeholder: int | None,
    images: Sequence[HeldImage],
    settings: Settings,
) -> list[Key]:
    if not images:
        return list(token_ids)
    waiting, read_as = iter(images), settings.read_as
    return [next(waiting).key(read_as) if token == placeholder else token for token in token_ids]


def _prepared(
    loaded: Loaded,
    images: Sequence[HeldImage],
    settings: Settings,
    conversation: Conversation,
    watch: Stopwatch,
) -> Prepared:
    if loaded.vision is None or settings.resolution is None:
        return {}
    known = {key[0] for key in conversation.keys if isinstance(key, tuple)}
    new = [image for image in images if image.digest not in known]
    return loaded.vision.prepare(new, settings.resolution, watch)
