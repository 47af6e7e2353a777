"""The request that points are counted by, and that their time is predicted for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tightrope.profiles.latency.pictures import Source, draw
from tightrope.profiles.latency.points import ANSWER
from tightrope.profiles.latency.profile import QUESTION
from tightrope.runtime.images import image_header

if TYPE_CHECKING:
    from tightrope.runtime.model import Model
    from tightrope.runtime.options import ImageSource

PICTURE = Source("PNG", 640, 480)


@dataclass(frozen=True, slots=True, kw_only=True)
class Typical:
    """A question and its images."""

    prompt: str
    images: Sequence[ImageSource]
    text_tokens: int
    """That template and tokenizer give, images as one each."""
    completion_tokens: int = ANSWER
    """Of an answer where no task says how long answers are."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        headers = map(image_header, self.images)
        return {
            "text_tokens": self.text_tokens,
            "images": [
                {"format": header.format, "width": header.width, "height": header.height}
                for header in headers
            ],
        }


def typical(model: Model, prompt: str | None, images: Sequence[ImageSource]) -> Typical:
    """The request of `prompt` and `images`, or where both are left out, a drawn one.

    Raises InputError for images that cannot be read.
    """
    if prompt is None:
        prompt = QUESTION
        if not images and model.bundle.manifest.vision is not None:
            images = [draw(PICTURE)]
    return Typical(
        prompt=prompt, images=images, text_tokens=len(model.token_ids(prompt, len(images)))
    )
