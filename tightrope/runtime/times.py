"""What requests take at each of a planner's candidates, tabled by the prompt's length and group."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from tightrope.arrays import Floats
from tightrope.errors import InputError
from tightrope.inputs.layout import ImageLayout
from tightrope.latency import LatencyModel, SourceImage, Stages, Workload
from tightrope.power import PowerModel
from tightrope.runtime.begun import Begun, begun_under, unread
from tightrope.runtime.candidates import Candidate
from tightrope.runtime.lengths import Lengths
from tightrope.runtime.marks import UNCUT, Beginnings
from tightrope.runtime.settings import Settings, resolve
from tightrope.runtime.workload import ENDLESS, Counted, work_of

if TYPE_CHECKING:
    from tightrope.runtime.loaded import Loaded

STEPS = ((128, 4), (512, 16), (4096, 64), (math.inf, 256))
"""Up to so many tokens a prompt counts as the next multiple of that: few lengths are tabled."""
MOST_KEPT = 512
"""Rows of the table, and kinds of images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Fitted milliseconds of each candidate, [P], images not decoded; infinite if none fits."""

    ttft: Floats
    decode: Floats
    token: Floats
    """Of one step."""
    call: Floats
    """Of the longest call: until it is done, nobody else has the device."""
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
        self._times = lru_cache(maxsize=MOST_KEPT)(self._compute)
        self._works = lru_cache(maxsize=MOST_KEPT)(self._work)
        self._settings: list[Settings] | None = None
        """Of the candidates, since they changed last."""
        self._alike: dict[tuple[ImageLayout | None, ...], SourceImage] = {}
        """By what the tower makes of an image at each resolution: one that it makes that of."""

    def times(
        self,
        token_ids: Sequence[int],
        images: Sequence[SourceImage],
        max_tokens: int,
        beginnings: Beginnings = UNCUT,
        begun: Begun | None = None,
    ) -> Times:
        """Of a prompt, in which each image is one token; begun: what its conversation holds."""
        step = next(step for most, step in STEPS if len(token_ids) <= most)
        num_ids = -(-len(token_ids) // step) * step
        seen = tuple(map(self._seen_as, images))
        # What was asked before is no question of this turn.
        group = self._lengths.group(token_ids[0 if begun is None else begun.num_ids :])
        return self._times(num_ids, seen, max_tokens, group, beginnings, begun)

    def forget(self) -> None:
        """The candidates changed."""
        self._times.cache_clear()
        self._works.cache_clear()
        self._alike.clear()
        self._settings = None

    def sources_ms(self, images: Sequence[SourceImage], begun: Begun | None = None) -> Floats:
        """What the images take by what they are before they are scaled, [P]."""
        found, times = dict[tuple[int | None, int], float](), list[float]()
        for settings in self._of_candidates():
            new = images if begun is None else unread(images, begun, settings)
            key = settings.resolution, len(new)
            if key not in found:
                found[key] = self._sources_ms(new, settings.resolution)
            times.append(found[key])
        return np.array(times)

    def _of_candidates(self) -> list[Settings]:
        """[P]"""
        if self._settings is None:
            manifest, baselines = self._loaded.manifest, self._loaded.baselines
            self._settings = [
                resolve(entry.point, manifest, baselines) for entry in self._candidates
            ]
        return self._settings

    def _seen_as(self, image: SourceImage) -> SourceImage:
        """An image of the same visual tokens at every resolution, one for all that have these.

        What it takes before it is scaled is no matter here: a square tower sees all images alike.
        """
        vision, size = self._loaded.vision, (image.width, image.height)
        layouts = list[ImageLayout | None]()
        sides = {settings.resolution for settings in self._of_candidates()}
        for resolution in sorted(filter(None, sides)):
            try:
                layouts.append(None if vision is None else vision.tower.layout(size, resolution))
            except InputError:  # the tower does not take it
                layouts.append(None)
        if len(self._alike) >= MOST_KEPT:
            self._alike.clear()
        plain = SourceImage(format="array", width=image.width, height=image.height)
        return replace(self._alike.setdefault(tuple(layouts), plain), pictures=image.pictures)

    def _sources_ms(self, images: Sequence[SourceImage], resolution: int | None) -> float:
        return math.fsum(self._model.source_ms(image, resolution) for image in images)

    def sources_j(self, sources_ms: Floats) -> Floats:
        """Joules of that, [P]; 0 where nobody measured any."""
        host_w = 0.0 if self._power is None else self._power.host_w
        return host_w * sources_ms / 1e3

    def _compute(
        self,
        num_ids: int,
        images: tuple[SourceImage, ...],
        max_tokens: int,
        group: int,
        beginnings: Beginnings,
        begun: Begun | None,
    ) -> Times:
        rows = []
        works = self._works(num_ids, images, beginnings, begun)
        for place, counted in enumerate(works):
            most = self._lengths.most(group, place)
            rows.append(self._row(counted, max_tokens if most is None else min(max_tokens, most)))
        ttft, decode, token, call, lengths, cached, first_j, decode_j = zip(*rows, strict=True)
        return Times(
            ttft=np.array(ttft),
            decode=np.array(decode),
            token=np.array(token),
            call=np.array(call),
            completion_tokens=lengths,
            cached_tokens=cached,
            first_j=np.array(first_j),
            decode_j=np.array(decode_j),
        )

    def _work(
        self,
        num_ids: int,
        images: tuple[SourceImage, ...],
        beginnings: Beginnings,
        begun: Begun | None,
    ) -> list[tuple[Workload, int] | None]:
        """[P]: of an answer as long as the slots hold, and tokens in slots that are kept.

        None where they cannot hold the prompt.
        """
        rows, known = list[tuple[Workload, int] | None](), dict[Hashable, Counted | None]()
        for settings in self._of_candidates():
            goes_on = begun_under(begun, settings)
            key = _but_for_methods(settings), goes_on is None
            if key not in known:
                known[key] = self._counted(num_ids, images, settings, beginnings, goes_on)
            counted = known[key]
            rows.append(
                None
                if counted is None
                else (_by_methods(counted.work, settings), counted.cached_tokens)
            )
        return rows

    def _counted(
        self,
        num_ids: int,
        images: Sequence[SourceImage],
        settings: Settings,
        beginnings: Beginnings,
        begun: Begun | None,
    ) -> Counted | None:
        try:
            return work_of(self._loaded, num_ids, images, settings, ENDLESS, beginnings, begun)
        except InputError:
            return None

    def _row(
        self, counted: tuple[Workload, int] | None, length: int
    ) -> tuple[float, float, float, float, int, int, float, float]:
        if counted is None:
            return math.inf, math.inf, math.inf, math.inf, length, 0, math.inf, math.inf
        work, cached = counted
        length = min(length, work.completion_tokens)  # it may end where the slots are full
        work = replace(work, completion_tokens=max(2, length))
        stages = self._model.stages(work)
        token = stages.decode_ms / work.steps
        sources_ms = self._sources_ms(work.images, work.resolution)
        ttft, decode = stages.ttft_ms - sources_ms, token * (length - 1)
        first_j, decode_j = math.nan, math.nan
        if self._power is not None:
            first_j = self._power.first_j(stages) - self._power.host_w * sources_ms / 1e3
            decode_j = self._power.write_w * decode / 1e3
        call = longest_call_ms(self._model, work, stages)
        return ttft, decode, token, call, length, cached, first_j, decode_j


def _but_for_methods(settings: Settings) -> Hashable:
    """What of a point decides how many tokens there are, whichever they are."""
    counts = replace(settings.point, selector=None, keep=None, thinking_tokens=None)
    return counts, tuple((link.place, link.keep) for link in settings.links)


def _by_methods(work: Workload, settings: Settings) -> Workload:
    """The work where the methods of these settings choose as many tokens."""
    tower, inside = settings.link("tower"), settings.link("inside")
    return replace(
        work,
        selector=work.selector and (None if tower is None else tower.method),
        schedule=work.schedule and (None if inside is None else inside.method),
    )


def longest_call_ms(model: LatencyModel, work: Workload, stages: Stages) -> float:
    """The longest stretch in which nobody else may run: tower and selection, a call, or a step.

    stages: of the work.
    """
    calls = (model.prefilling.ms(replace(work, prefill=(call,))) for call in work.prefill)
    step = stages.decode_ms / max(1, work.steps)
    return max(stages.vision_ms + stages.select_ms, step, *calls)
