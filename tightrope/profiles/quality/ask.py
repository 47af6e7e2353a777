"""What a race asks, question by question, on this machine; another may answer in its place."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tightrope.errors import InputError
from tightrope.point import OperatingPoint
from tightrope.profiles.measure import Request, measure
from tightrope.profiles.quality.implied import implied
from tightrope.profiles.task.task import Item
from tightrope.runtime.images import load_image

if TYPE_CHECKING:
    from tightrope.runtime.model import Model
    from tightrope.runtime.options import ImageSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question and the points that it is asked at."""

    item: Item
    points: tuple[OperatingPoint, ...]
    """Those that imply others come before them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What was answered at one point."""

    text: str
    token_ids: tuple[int, ...]
    completion_tokens: int
    thinking_tokens: int
    finish_reason: str


Replies = Generator[tuple[Item, OperatingPoint, Reply], None, None]
Ask = Callable[[Sequence[Question], int], Replies]
"""Asks questions, with so many tokens for each answer at most, in any order; those of one question
in the order of its points, what others imply left out. Closing it ends what was not asked yet."""


def ask_here(model: Model) -> Ask:
    """One question after another, on `model`."""

    def ask_all(questions: Sequence[Question], max_tokens: int) -> Replies:
        for question in questions:
            for point, reply in ask(model, question, question.item.images, max_tokens):
                yield question.item, point, reply

    return ask_all


def ask(
    model: Model, question: Question, images: Sequence[ImageSource], max_tokens: int
) -> Iterator[tuple[OperatingPoint, Reply]]:
    """Ask one question at its points; what follows from another of its replies is not asked.

    images: the question's, decoded once for all points.
    Raises InputError naming a question that cannot be asked.
    """
    item = question.item
    try:
        pictures = [load_image(image) for image in images]
    except InputError as error:
        raise InputError(f"question {item.id!r} cannot be asked: {error}") from error
    known: dict[OperatingPoint, dict[str, Reply]] = {}
    for point in question.points:
        reply = implied(point, item, known)
        if reply is not None:
            known[point] = {item.id: reply}
            continue
        request = Request(
            name=item.id,
            prompt=item.messages,
            images=[] if item.seconds else pictures,
            frames=list(zip(item.seconds, pictures, strict=False)),
            max_tokens=max_tokens,
            point=point,
        )
        (answer,) = measure(model, [request], total=1)
        reply = Reply(
            text=answer.text,
            token_ids=answer.token_ids,
            completion_tokens=answer.usage.completion_tokens,
            thinking_tokens=answer.usage.thinking_tokens,
            finish_reason=answer.finish_reason,
        )
        known[point] = {item.id: reply}
        yield point, reply
