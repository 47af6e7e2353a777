"""Requests to a model, one after another, with all that is known of each answer.

Whatever measures a bundle reads it here: speed from the timings, accuracy from the texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tightrope.errors import InputError
from tightrope.point import OperatingPoint
from tightrope.progress import Progress, silent
from tightrope.runtime.images import load_image

if TYPE_CHECKING:
    from PIL.Image import Image

    from tightrope.runtime.answer import Answer
    from tightrope.runtime.model import Model
    from tightrope.runtime.options import Frames, ImageSource, Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a model is asked, and how it is to answer."""

    name: str
    """What progress and errors call it."""
    prompt: Prompt
    """A question, messages, or token ids."""
    images: Sequence[ImageSource] = ()
    frames: Frames = ()
    max_tokens: int
    seed: int = 0
    point: OperatingPoint | None = None
    """What it may spend; None: everything."""
    ignore_eos: bool = False
    thinking: bool | None = None
    """Whether the model may think first; None leaves it to the chat template."""


def encoded(model: Model, request: Request) -> Request:
    """The request with its prompt as token ids, so that nothing can be wrong with it later.

    Raises InputError naming the request whose prompt the model cannot be given.
    """
    with _naming(request):
        ids = model.token_ids(
            request.prompt,
            len(request.images),
            request.thinking,
            request.point,
            request.frames,
        )
    return replace(request, prompt=ids, thinking=None)


def measure(
    model: Model, requests: Iterable[Request], *, total: int, progress: Progress = silent
) -> list[Answer]:
    """The answers to `total` requests, asked in the order in which they come.

    A request is taken when the one before it has been answered: not all of their images need to be
    in memory. Image files that follow each other are decoded once, which no timing counts.
    progress: called with the request's name before it is asked.
    Raises InputError naming the request that cannot be asked.
    """
    answers: list[Answer] = []
    files: dict[str | Path, Image] = {}
    for request in requests:
        progress(request.name, len(answers) / total)
        with _naming(request):
            sources = [*request.images, *(source for _, source in request.frames)]
            files = {
                source: files.get(source) or load_image(source)
                for source in sources
                if isinstance(source, (str, Path))
            }
            decoded = [
                files[source] if isinstance(source, (str, Path)) else source for source in sources
            ]
            seconds = [at for at, _ in request.frames]
            answer = model.generate(
                request.prompt,
                images=decoded[: len(request.images)],
                frames=list(zip(seconds, decoded[len(request.images) :], strict=True)),
                max_tokens=request.max_tokens,
                seed=request.seed,
                thinking=request.thinking,
                point=request.point,
                ignore_eos=request.ignore_eos,
            )
        answers.append(answer)
    return answers


@contextmanager
def _naming(request: Request) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise InputError(f"request {request.name!r} cannot be asked: {error}") from error
