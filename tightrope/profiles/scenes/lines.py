"""What a task says of one scene: its lines, and the files that they name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tightrope.arrays import Array
from tightrope.profiles.scenes.grounding import Asked, Spot
from tightrope.profiles.scenes.questions import Question
from tightrope.profiles.scenes.scene import SIDE, Scene, Split

Files = Mapping[str, Array]
"""Path in the task's folder -> uint8 [h,w,3], or uint16 [h,w] for depth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Which scene is wanted, and how."""

    split: Split
    seed: int
    index: int
    pixels: int
    level: str | int | None = None
    """None: the kind's usual one, or one drawn by its share."""
    shares: Mapping[str, int] = field(default_factory=dict)
    """Of the kinds in a mix, in percent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A scene's lines for `task.jsonl`, and the files that they name."""

    lines: tuple[dict[str, Any], ...]
    draw: Callable[[], Files]
    """Called only if a line with images is kept."""


def numbered(folder: str, order: Order, count: int) -> tuple[str, ...]:
    """Paths of the pictures of one scene, or of what belongs to them."""
    return tuple(f"{folder}/{order.index:05}-{number:02}.png" for number in range(1, count + 1))


def placed(scenes: Sequence[Scene], asked: Iterable[Question | None]) -> list[Asked]:
    """Questions about scenes, each of them an image, with the boxes of what they are about."""
    spots = [Spot(image=at, box=box) for at, scene in enumerate(scenes) for box in scene.boxes]
    return [
        Asked(question=question, spots=tuple(spots[at] for at in question.about))
        for question in asked
        if question is not None
    ]


def lines_of(
    order: Order,
    asked: Iterable[Asked | None],
    images: tuple[str, ...],
    side: int,
    info: Mapping[str, Any],
) -> tuple[dict[str, Any], ...]:
    """What `task.jsonl` says of questions. side: the pictures' width in the units of the spots."""
    return tuple(_line(order, one, images, side, info) for one in asked if one is not None)


def _line(
    order: Order, asked: Asked, images: tuple[str, ...], side: int, info: Mapping[str, Any]
) -> dict[str, Any]:
    question = asked.question
    fields: dict[str, Any] = {"split": order.split, "scene": order.index, **info}
    if images:
        boxes = [spot.box for spot in asked.spots]
        fields["pixels"] = order.pixels
        fields["about"] = [[_rounded(edge * order.pixels / side) for edge in box] for box in boxes]
        if boxes:
            sides = [min(right - left, bottom - top) for left, top, right, bottom in boxes]
            fields["smallest"] = _rounded(min(sides) * SIDE / side)
    if len(images) > 1:
        fields["about_images"] = [spot.image for spot in asked.spots]
    if question.thought is not None:
        fields["thought"] = question.thought
    messages = []
    for earlier, answer in question.earlier:
        messages.append({"role": "user", "content": earlier})
        messages.append({"role": "assistant", "content": answer})
    said = {"messages": [*messages, {"role": "user", "content": question.question}]}
    return {
        "id": f"{order.index:05}-{question.type}",
        "images": list(images),
        **(said if messages else {"question": question.question}),
        "answer": question.answer,
        "type": question.type,
        "info": fields,
    }


def _rounded(value: float) -> float:
    return round(value, 2)
