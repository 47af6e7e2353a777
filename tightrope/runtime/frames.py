"""Clips: frames with their seconds, shown to a model as its family was taught to see them.

A frame is an image, or some towers read two as one. What tells its time differs: nothing, a text
before it, or the first axis of its positions; in the latter case the frames of a clip stand side by
side, with nothing between.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from tightrope.checks import shown
from tightrope.errors import InputError
from tightrope.inputs.vision import VisionInfo
from tightrope.runtime.images import check_list
from tightrope.runtime.language import Language
from tightrope.runtime.options import Frame, Frames, ImageSource, Prompt
from tightrope.runtime.prompt import split_places

MOST_FRAMES = 256
"""Of a clip: a picture of 1920 x 1080 takes 6 MB once it is decoded."""
VIDEO = {"type": "video"}
_IMAGE = {"type": "image"}


def place_frames(
    prompt: Prompt, images: Sequence[ImageSource], frames: Frames, vision: VisionInfo | None
) -> tuple[Prompt, Sequence[ImageSource]]:
    """The prompt with a place for each frame, and all pictures in the order of their places.

    A {"type": "video"} part of a user's message marks where the clip stands; without one it comes
    before the text of the user's first message. Among token ids the frames' places are the last.
    images: which may be frames of earlier clips. Raises InputError for what are no frames, too
    many of them, or out of order, and for a model that sees none.
    """
    if not frames:
        return prompt, images
    check_list(images)
    clip = _checked(frames, vision)
    assert vision is not None
    if not isinstance(prompt, str) and not all(isinstance(item, Mapping) for item in prompt):
        return prompt, [*images, *clip]
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    told = [_in_parts(message, vision.image_token) for message in messages]
    asked = [
        message["content"]
        for message in told
        if message.get("role") == "user" and isinstance(message.get("content"), list)
    ]
    if not asked:
        raise InputError("frames came, but no message of the user to put them in")
    marked = sum(parts.count(_IMAGE) for parts in asked)
    if not marked:
        asked[0][:0] = [_IMAGE] * len(images)
    elif marked != len(images):
        raise InputError(
            f"the messages mark places for {marked} images, but {len(images)} came beside the "
            "frames; mark one place per image, or none to have the images come first"
        )
    clips = sum(parts.count(VIDEO) for parts in asked)
    if clips > 1:
        raise InputError(f"the messages mark places for {clips} clips; frames are those of one")
    if not clips:
        first = next((i for i, part in enumerate(asked[0]) if part != _IMAGE), len(asked[0]))
        asked[0].insert(first, VIDEO)
    waiting, ordered = iter(images), list[ImageSource]()
    for parts in asked:
        whole = list(parts)
        parts.clear()
        for part in whole:
            if part == VIDEO:
                ordered += clip
                parts += _shown_as(clip, vision.timestamps)
            else:
                ordered += [next(waiting)] if part == _IMAGE else []
                parts.append(part)
    return told, ordered


def side_by_side(
    token_ids: list[int], placeholder: int | None, images: Sequence[object]
) -> list[int]:
    """The prompt without what a template wrote between frames that stand side by side.

    images: in the order of their placeholders, one each.
    """
    places = [place for place, token in enumerate(token_ids) if token == placeholder]
    for left, right in reversed([*zip(range(len(images)), range(1, len(images)), strict=False)]):
        other = images[right]
        if isinstance(other, Frame) and other.behind is not None:
            token_ids = [*token_ids[: places[left] + 1], *token_ids[places[right] :]]
    return token_ids


def _checked(frames: Frames, vision: VisionInfo | None) -> list[Frame]:
    if vision is None:
        raise InputError(f"{len(frames)} frames were given, but the bundle sees no images")
    accepted = "accepted: a list of pairs (seconds, image), earlier ones first"
    if isinstance(frames, (str, bytes)) or not isinstance(frames, Sequence):
        raise InputError(f"frames is {shown(frames)}; {accepted}")
    if len(frames) > MOST_FRAMES:
        raise InputError(f"{len(frames)} frames were given; accepted: up to {MOST_FRAMES}")
    pictures: list[tuple[float, ImageSource]] = []
    for pair in frames:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise InputError(f"frames has {shown(pair)}; {accepted}")
        seconds, source = pair
        number = isinstance(seconds, Real) and not isinstance(seconds, bool)
        if not number or not 0 <= seconds < math.inf:
            raise InputError(f"a frame has seconds {shown(seconds)}; accepted: a number from 0 on")
        if pictures and seconds <= pictures[-1][0]:
            raise InputError(f"a frame of {seconds} s stands behind one of {pictures[-1][0]} s")
        pictures.append((float(seconds), source))
    return _together(pictures, vision)


def _together(pictures: list[tuple[float, ImageSource]], vision: VisionInfo) -> list[Frame]:
    """The clip as the tower reads it; what is left over at its end is read alone."""
    clip = []
    for place in range(0, len(pictures), vision.together):
        times, sources = zip(*pictures[place : place + vision.together], strict=True)
        behind = int((times[0] - pictures[0][0]) * vision.second)
        told = behind if place and vision.second else None
        clip.append(Frame(sources[0], (times[0] + times[-1]) / 2, told, sources[1:]))
    return clip


def _in_parts(message: Any, image_token: str) -> dict[str, Any]:
    """A copy of the message, a user's with a list of parts in which every place is one."""
    content = message.get("content")
    if message.get("role") != "user" or not isinstance(content, (str, list)):
        return dict(message)
    parts: list[Any] = [{"type": "text", "text": content}] if isinstance(content, str) else content
    split: list[Any] = []
    for part in parts:
        text = isinstance(part, Mapping) and isinstance(part.get("text"), str)
        split += split_places([dict(part)], image_token) if text else [part]
    return {**message, "content": split}


def _shown_as(clip: Sequence[Frame], timestamps: bool) -> list[dict[str, str]]:
    parts = []
    for frame in clip:
        if timestamps:
            parts.append({"type": "text", "text": f"<{frame.seconds:.1f} seconds>"})
        parts.append(_IMAGE)
    return parts


def prompt_ids(
    language: Language,
    prompt: Prompt,
    images: Sequence[ImageSource],
    thinking: bool | None,
    thinking_tokens: int | None = None,
) -> list[int]:
    """Token ids of the prompt with one placeholder for each of the images, frames among them."""
    ids = language.token_ids(prompt, len(images), thinking, thinking_tokens)
    return side_by_side(ids, language.placeholder, images)
