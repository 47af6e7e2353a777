"""The parts of the model: how much there is of each thing, and what one of it takes.

A part is a stage's coefficients; `units` beside them counts, in the order of the fields.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tightrope.latency.workload import SourceImage, Workload

SKIPPED = 0.05
"""What a pixel takes that is read and not decoded, as a share of one that is: a decoder that makes
fewer pixels still follows all of them through the file (`benchmarks/jpeg_detail.py`)."""

Units = tuple[float, ...]
"""How much there is of each thing that takes time, in the order of a part's fields."""


def time_of(part: Any, units: Units) -> float:
    """Milliseconds of `units` by the part's fields."""
    # `__slots__` has them in order; a planner predicts often, and `astuple` copies deeply.
    per = [getattr(part, name) for name in part.__slots__]
    return math.fsum(ms * much for ms, much in zip(per, units, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """Milliseconds to decode and hash images of one format."""

    image_ms: float
    megapixel_ms: float
    """Decoded; one that is skipped takes a share of it."""
    megabyte_ms: float
    """Of the encoded file."""

    @staticmethod
    def units(image: SourceImage, resolution: int | None) -> Units:
        """Pixels are hashed to be recognised, as files are: an array costs no more than that."""
        if image.known and image.encoded_bytes:
            return 0.0, 0.0, 0.0
        decoded, whole = image.megapixels(resolution), image.megapixels(None)
        pixels = decoded + SKIPPED * (whole - decoded)
        return float(image.pictures), pixels, image.encoded_bytes / 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """Milliseconds to scale and normalise images."""

    image_ms: float
    megapixel_ms: float
    """Of the decoded image."""
    result_megapixel_ms: float

    @staticmethod
    def units(work: Workload) -> Units:
        new = [image for image in work.images if not image.known]
        decoded = math.fsum(image.megapixels(work.resolution) for image in new)
        count = sum(image.pictures for image in new)
        result = count * (work.resolution or 0) ** 2 / 1e6
        return float(count), decoded, result


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerTime:
    """Milliseconds of the vision tower for one image of a resolution."""

    resolution: int
    image_ms: float
    visual_tokens: float = 0.0
    """Of an image as it was measured, the mean; 0 where no image has more than another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selecting:
    """Milliseconds of one method that selects before the language model."""

    call_ms: float
    """Per image: each has a call of its own."""
    square_ms: float
    """Per pair of visual tokens of an image: methods that compare all."""
    pair_ms: float
    """Per visual token and token kept: methods that work in rounds."""

    @staticmethod
    def units(work: Workload) -> Units:
        tokens = len(work.images) * work.visual_tokens
        pairs = tokens * work.visual_tokens, tokens * work.visual_tokens_kept
        return float(len(work.images)), *pairs


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefilling:
    """Milliseconds of reading a prompt."""

    knots: tuple[float, ...]
    """Tokens of a call where the next slope begins, the first 0, ascending."""
    token_ms: tuple[float, ...]
    """Per token, from each knot to the next."""
    call_ms: float
    pair_ms: float
    """Per token and slot that is attended to."""
    behind_tower_ms: float
    """Once, where the tower ran just before: caches are cold, its threads still spin."""
    eviction_ms: float
    """Per call after which slots are given up."""
    given_up_ms: float
    """Per slot given up."""
    schedules: dict[str, float]
    """What the graph of each schedule takes more in its one call."""
    behind_selector_ms: dict[str, float]
    """Once, where this method selected just before: another session's threads still spin."""

    @staticmethod
    def units(work: Workload, knots: tuple[float, ...]) -> tuple[Units, Units]:
        """Tokens in each segment, and the rest in the order of the fields."""
        ends = (*knots[1:], math.inf)
        tokens = tuple(
            math.fsum(min(max(call.tokens - start, 0.0), end - start) for call in work.prefill)
            for start, end in zip(knots, ends, strict=True)
        )
        rest = (
            float(len(work.prefill)),
            math.fsum(call.tokens * call.occupied for call in work.prefill),
            float(any(not image.known for image in work.images)),
            float(sum(call.given_up > 0 for call in work.prefill)),
            math.fsum(call.given_up for call in work.prefill),
        )
        return tokens, rest

    def ms(self, work: Workload) -> float:
        tokens, rest = self.units(work, self.knots)
        once = (self.call_ms, self.pair_ms, self.behind_tower_ms)
        per = (*self.token_ms, *once, self.eviction_ms, self.given_up_ms)
        read = math.fsum(ms * much for ms, much in zip(per, (*tokens, *rest), strict=True))
        if work.schedule is not None:
            read += self.schedules.get(work.schedule, 0.0)
        if work.selector is not None:
            read += self.behind_selector_ms.get(work.selector, 0.0)
        return read


@dataclass(frozen=True, slots=True, kw_only=True)
class Stepping:
    """Milliseconds of decoding: a token takes `token_ms + slot_ms · context`."""

    start_ms: float
    """Once, in the first step: bindings are made."""
    token_ms: float
    slot_ms: float
    """Per occupied slot."""
    eviction_ms: float
    """Per token that takes the slot of another."""

    @staticmethod
    def units(work: Workload) -> Units:
        full = work.steps - work.growing_steps() if work.evicts else 0.0
        return float(work.steps > 0), float(work.steps), work.attended_slots(), full


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosting:
    """Milliseconds that no stage counts: template, tokenizer, embeddings, handing over."""

    request_ms: float
    token_ms: float

    @staticmethod
    def units(work: Workload) -> Units:
        return 1.0, float(work.text_tokens)
