"""What a request makes the machine do, as far as it takes time: images, calls, steps."""

from __future__ import annotations

from dataclasses import dataclass

SCALES = (8, 4, 2)
"""By which a JPEG's sides can be divided while it is decoded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceImage:
    """What decides how long an image takes to decode; its header tells."""

    format: str
    """Pillow's name, such as "JPEG"; "array" where nothing is encoded."""
    width: int
    height: int
    encoded_bytes: int = 0
    known: bool = False
    """Whether the tower has seen it: its content is recognised, and nothing is decoded."""
    pictures: int = 1
    """Frames of a clip that it is made of, all of this size."""
    detail: float = 0.0
    """Times the resolution, the least that decoding leaves of its shorter side; 0: all of it."""

    def scale(self, resolution: int | None) -> int:
        """By how much each side is divided while it is decoded, as decoders of JPEG can."""
        if not self.detail or resolution is None:
            return 1
        spare = min(self.width, self.height) / (self.detail * resolution)
        return next((scale for scale in SCALES if scale <= spare), 1)

    def megapixels(self, resolution: int | None) -> float:
        """That come out of the decoder."""
        each = self.width * self.height / self.scale(resolution) ** 2
        return self.pictures * each / 1e6


@dataclass(frozen=True, slots=True)
class PrefillCall:
    """One call of the decoder over new tokens; means over the layers."""

    tokens: float
    occupied: float
    """Slots that hold something before it."""
    given_up: float = 0.0
    """Slots given up after it, because the budget is full."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What a request makes the machine do."""

    text_tokens: int
    """Tokens that template and tokenizer give, images as one each."""
    images: tuple[SourceImage, ...] = ()
    resolution: int | None = None
    visual_tokens: float = 0.0
    """Of an image before selection, V; the mean where images differ."""
    visual_tokens_kept: float = 0.0
    """Of an image after a selection before the language model, K; the mean likewise."""
    selector: str | None = None
    """What selects before the language model; None where nothing does."""
    schedule: str | None = None
    """What selects inside it."""
    prefill: tuple[PrefillCall, ...]
    context: float
    """Occupied slots when the first token comes, mean over the layers."""
    most_context: float
    """Slots that may be occupied, mean over the layers."""
    evicts: bool = False
    """Whether a slot is given up where all are full."""
    completion_tokens: int = 1

    @property
    def steps(self) -> int:
        """The first token comes out of the prefill."""
        return self.completion_tokens - 1

    def growing_steps(self) -> float:
        """Steps that find an empty slot."""
        return min(max(self.most_context - self.context, 0.0), float(self.steps))

    def attended_slots(self) -> float:
        """Occupied slots, summed over all steps."""
        growing = self.growing_steps()
        full = (self.steps - growing) * self.most_context
        return growing * self.context + growing * (growing - 1) / 2 + full
