"""What a request takes on one machine: a model of its stages, fitted to a few measured requests.

Every stage is a sum of things to do times what one of them takes, none below zero: more of anything
never takes less, and beyond what was measured the model goes on in a straight line. A prediction's
spread is that of all measured requests around what was predicted for them.

    images      a + b · megapixels + c · megabytes of the source, per format; then scaling
    vision      by resolution, per image
    selection   per method: a + b · V² + c · V · K
    prefill     piecewise linear in the tokens of a call, and tokens · slots that they attend to
    decode      a token takes n + m · context

For what another machine may do from its data sheet alone: `tightrope.jetson.roofline`.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

PERCENTS = (0.0, 1.0, 5.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 98.0, 99.0, 100.0)
"""Percentiles of which a spread keeps the value."""


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
    megabyte_ms: float
    """Of the encoded file."""

    @staticmethod
    def units(image: SourceImage, resolution: int | None) -> Units:
        """Pixels are hashed to be recognised, as files are: an array costs no more than that."""
        if image.known and image.encoded_bytes:
            return 0.0, 0.0, 0.0
        return float(image.pictures), image.megapixels(resolution), image.encoded_bytes / 1e6


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Measured over predicted, of all measured requests."""

    mean: float
    ratios: tuple[float, ...]
    """At each of PERCENTS, ascending."""

    def percentile(self, percent: float) -> float:
        """The ratio below which `percent` of the requests lay."""
        for place, upper in enumerate(PERCENTS[1:]):
            if percent <= upper:
                share = (percent - PERCENTS[place]) / (upper - PERCENTS[place])
                low, high = self.ratios[place : place + 2]
                return min(high, low + (high - low) * share)  # rounding must not pass it
        return self.ratios[-1]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A predicted time."""

    fitted_ms: float
    spread: Spread

    @property
    def mean_ms(self) -> float:
        return self.fitted_ms * self.spread.mean

    def percentile_ms(self, percent: float) -> float:
        """Milliseconds that `percent` of such requests do not exceed."""
        return self.fitted_ms * self.spread.percentile(percent)

    def to_dict(self) -> dict[str, float]:
        """JSON-ready: mean and percentiles."""
        told = {f"p{percent}_ms": self.percentile_ms(percent) for percent in (50, 95, 99)}
        return {"mean_ms": self.mean_ms, **told}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """Milliseconds of each stage, named as `Timings` names them."""

    image_decode_ms: float
    preprocess_ms: float
    vision_ms: float
    select_ms: float
    prefill_ms: float
    host_ms: float
    """What the others leave of the time to the first token."""
    decode_ms: float

    @property
    def ttft_ms(self) -> float:
        images = self.image_decode_ms + self.preprocess_ms + self.vision_ms + self.select_ms
        return images + self.prefill_ms + self.host_ms

    @property
    def total_ms(self) -> float:
        return self.ttft_ms + self.decode_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What a request will take."""

    stages: Stages
    ttft: Estimate
    """Time to the first token."""
    tpot: Estimate
    """Time per token after the first."""
    total: Estimate
    unmeasured: tuple[str, ...] = ()
    """Parts of it that were not measured; the dearest of their kind stands in for each."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {
            "stages": asdict(self.stages),
            "ttft": self.ttft.to_dict(),
            "tpot": self.tpot.to_dict(),
            "total": self.total.to_dict(),
            "unmeasured": list(self.unmeasured),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyModel:
    """Fitted on one machine to one bundle; see the module's text for the shape."""

    decoding: dict[str, Decoding]
    """By format."""
    preprocessing: Preprocessing
    tower: tuple[TowerTime, ...]
    """By ascending resolution; empty for a text model."""
    selecting: dict[str, Selecting]
    """By method."""
    prefilling: Prefilling
    stepping: Stepping
    hosting: Hosting
    ttft: Spread
    tpot: Spread
    total: Spread

    def predict(self, work: Workload) -> Prediction:
        """What `work` will take, stage by stage."""
        stages = self.stages(work)
        steps = max(work.steps, 1)
        decode = stages.decode_ms
        if not work.steps:  # what a first step would take
            decode = self.stepping.token_ms + self.stepping.slot_ms * work.context
        return Prediction(
            stages=stages,
            ttft=Estimate(stages.ttft_ms, self.ttft),
            tpot=Estimate(decode / steps, self.tpot),
            total=Estimate(stages.total_ms, self.total),
            unmeasured=self.unmeasured(work),
        )

    def stages(self, work: Workload) -> Stages:
        """The fitted time of each stage."""
        new = sum(not image.known for image in work.images)
        return Stages(
            image_decode_ms=math.fsum(
                self._decode_ms(image, work.resolution) for image in work.images
            ),
            preprocess_ms=time_of(self.preprocessing, Preprocessing.units(work)),
            vision_ms=new * self._tower_ms(work) if new else 0.0,
            select_ms=self._select_ms(work),
            prefill_ms=self.prefilling.ms(work),
            host_ms=time_of(self.hosting, Hosting.units(work)),
            decode_ms=time_of(self.stepping, Stepping.units(work)),
        )

    def source_ms(self, image: SourceImage, resolution: int | None) -> float:
        """What a new image takes by what it is before it is scaled: the rest of its stages is 0."""
        scaling = self.preprocessing.megapixel_ms * image.megapixels(resolution)
        return self._decode_ms(image, resolution) + scaling

    def unmeasured(self, work: Workload) -> tuple[str, ...]:
        """What `work` has that no measured request had."""
        asked = {
            **{f"format {image.format}": image.format in self.decoding for image in work.images},
            f"selector {work.selector}": work.selector in (None, *self.selecting),
            f"schedule {work.schedule}": work.schedule in (None, *self.prefilling.schedules),
        }
        return tuple(name for name, measured in asked.items() if not measured)

    def _decode_ms(self, image: SourceImage, resolution: int | None) -> float:
        known = self.decoding.get(image.format)
        parts = self.decoding.values() if known is None else (known,)
        units = Decoding.units(image, resolution)
        return max((time_of(part, units) for part in parts), default=0.0)

    def _select_ms(self, work: Workload) -> float:
        if work.selector is None or not work.images:
            return 0.0
        known = self.selecting.get(work.selector)
        parts = self.selecting.values() if known is None else (known,)
        return max((time_of(part, Selecting.units(work)) for part in parts), default=0.0)

    def _tower_ms(self, work: Workload) -> float:
        """Between measured resolutions by area, outside in proportion to it; in one by tokens."""
        resolution = work.resolution
        if resolution is None or not self.tower:
            return 0.0
        below = [row for row in self.tower if row.resolution <= resolution]
        above = [row for row in self.tower if row.resolution >= resolution]
        if not below or not above:
            nearest = below[-1] if below else above[0]
            return nearest.image_ms * (resolution / nearest.resolution) ** 2
        low, high = below[-1], above[0]
        if low == high:
            alike = work.visual_tokens / low.visual_tokens if low.visual_tokens else 1.0
            return low.image_ms * alike
        share = (resolution**2 - low.resolution**2) / (high.resolution**2 - low.resolution**2)
        return low.image_ms + share * (high.image_ms - low.image_ms)


def check_model(model: LatencyModel) -> None:
    """Raises ValueError for figures that no fit gives: negative, infinite, out of order."""
    for name, number in _numbers(asdict(model), "model"):
        if not (math.isfinite(number) and number >= 0):
            raise ValueError(f"{name} is {number}")
    spreads = {"ttft": model.ttft, "tpot": model.tpot, "total": model.total}
    for name, spread in spreads.items():
        if len(spread.ratios) != len(PERCENTS) or sorted(spread.ratios) != list(spread.ratios):
            raise ValueError(f"{name} has no {len(PERCENTS)} ascending ratios")
    knots, resolutions = model.prefilling.knots, [row.resolution for row in model.tower]
    ordered = sorted({*knots}) == list(knots) and sorted({*resolutions}) == resolutions
    if not ordered or knots[:1] != (0.0,) or len(knots) != len(model.prefilling.token_ms):
        raise ValueError("knots or resolutions are out of order")


def _numbers(value: Any, name: str) -> list[tuple[str, float]]:
    if isinstance(value, dict):
        return [pair for key, item in value.items() for pair in _numbers(item, f"{name}: {key}")]
    if isinstance(value, (list, tuple)):
        return [pair for item in value for pair in _numbers(item, name)]
    return [(name, value)]
