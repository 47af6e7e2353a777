"""What requests take at each of a planner's candidates, tabled by the prompt's length and group."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from tightrope.arrays import Floats
from tightrope.errors import InputError
from tightrope.inputs.layout import Size
from tightrope.latency import LatencyModel, SourceImage
from tightrope.power import PowerModel
from tightrope.runtime.candidates import Candidate
from tightrope.runtime.lengths import Lengths
from tightrope.runtime.marks import UNCUT, Beginnings
from tightrope.runtime.settings import Settings, resolve
from tightrope.runtime.workload import work_of

if TYPE_CHECKING:
    from tightrope.runtime.loaded import Loaded

STEPS = ((128, 4), (512, 16), (4096, 64), (math.inf, 256))
"""Up to so many tokens a prompt counts as the next multiple of that: few lengths are tabled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Fitted milliseconds of each candidate, [P], images not decoded; infinite if none fits."""

    ttft: Floats
    decode: Floats
    token: Floats
    """Of one step."""
    completion_tokens: tuple[int, ...]
    """That were counted on."""
    cached_tokens: tuple[int, ...]
    """Of the prompt, in slots that are kept."""
    first_j: Floats
    """Joules until the first token, images not decoded; not a number where nobody measured any."""
    decode_j: Floats
    """Of all steps."""


class TimeTable:
    """Fitted times of one bundle's candidates."""

    def __init__(
        self,
        loaded: Loaded,
        model: LatencyModel,
        candidates: Sequence[Candidate],
        lengths: Lengths,
        power: PowerModel | None = None,
    ) -> None:
        self._loaded, self._model, self._candidates = loaded, model, candidates
        self._lengths, self._power = lengths, power
        self._times = lru_cache(maxsize=512)(self._compute)
        self._resolutions: list[int | None] | None = None
        """Of the candidates, since they changed last."""

    def times(
        self,
        token_ids: Sequence[int],
        images: Sequence[SourceImage],
        max_tokens: int,
        beginnings: Beginnings = UNCUT,
    ) -> Times:
        """Of a prompt, in which each image is one token."""
        step = next(step for most, step in STEPS if len(token_ids) <= most)
        num_ids = -(-len(token_ids) // step) * step
        sizes = tuple((image.width, image.height) for image in images)
        group = self._lengths.group(token_ids)
        return self._times(num_ids, sizes, max_tokens, group, beginnings)

    def forget(self) -> None:
        """The candidates changed."""
        self._times.cache_clear()
        self._resolutions = None

    def sources_ms(self, images: Sequence[SourceImage]) -> Floats:
        """What the images take by what they are before they are scaled, [P]."""
        if self._resolutions is None:
            self._resolutions = [self._settings(entry).resolution for entry in self._candidates]
        each = {
            resolution: self._sources_ms(images, resolution) for resolution in {*self._resolutions}
        }
        return np.array([each[resolution] for resolution in self._resolutions])

    def _sources_ms(self, images: Sequence[SourceImage], resolution: int | None) -> float:
        return math.fsum(self._model.source_ms(image, resolution) for image in images)

    def _settings(self, entry: Candidate) -> Settings:
        return resolve(entry.point, self._loaded.manifest, self._loaded.baselines)

    def sources_j(self, images: Sequence[SourceImage]) -> Floats:
        """Joules of that, [P]; 0 where nobody measured any."""
        host_w = 0.0 if self._power is None else self._power.host_w
        return host_w * self.sources_ms(images) / 1e3

    def _compute(
        self,
        num_ids: int,
        sizes: tuple[Size, ...],
        max_tokens: int,
        group: int,
        beginnings: Beginnings,
    ) -> Times:
        images = [SourceImage(format="array", width=wide, height=high) for wide, high in sizes]
        rows = []
        for place, entry in enumerate(self._candidates):
            most = self._lengths.most(group, place)
            length = max_tokens if most is None else min(max_tokens, most)
            rows.append(self._row(entry, num_ids, images, length, beginnings))
        ttft, decode, token, lengths, cached, first_j, decode_j = zip(*rows, strict=True)
        return Times(
            ttft=np.array(ttft),
            decode=np.array(decode),
            token=np.array(token),
            completion_tokens=lengths,
            cached_tokens=cached,
            first_j=np.array(first_j),
            decode_j=np.array(decode_j),
        )

    def _row(
        self,
        entry: Candidate,
        num_ids: int,
        images: Sequence[SourceImage],
        length: int,
        beginnings: Beginnings,
    ) -> tuple[float, float, float, int, int, float, float]:
        settings = self._settings(entry)
        try:
            counted = work_of(self._loaded, num_ids, images, settings, length, beginnings)
        except InputError:  # the slots cannot hold it at this point
            return math.inf, math.inf, math.inf, length, 0, math.inf, math.inf
        work = counted.work
        length = work.completion_tokens  # it may end where the slots are full
        work = replace(work, completion_tokens=max(2, work.completion_tokens))
        stages = self._model.stages(work)
        token = stages.decode_ms / work.steps
        sources_ms = self._sources_ms(images, work.resolution)
        ttft, decode = stages.ttft_ms - sources_ms, token * (length - 1)
        first_j, decode_j = math.nan, math.nan
        if self._power is not None:
            first_j = self._power.first_j(stages) - self._power.host_w * sources_ms / 1e3
            decode_j = self._power.write_w * decode / 1e3
        return ttft, decode, token, length, counted.cached_tokens, first_j, decode_j
