"""Requests that were kept, beside what a latency model says of each."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from tightrope.errors import InputError
from tightrope.latency import LatencyModel, Stages
from tightrope.live_file import Entry, LiveRequest
from tightrope.plugins.slot_attention.policies import scoring
from tightrope.quality_file import point_of
from tightrope.runtime.loaded import Loaded
from tightrope.runtime.marks import Beginnings, Mark
from tightrope.runtime.settings import Settings, resolve
from tightrope.runtime.workload import work_of

UNKNOWN_AGE_S = 86_400.0
"""Taken for the age of what a clock, set back since then, calls the future."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One request: measured and fitted milliseconds of its stages."""

    time_s: float
    """When it was done, since 1970."""
    took: Stages
    fitted: Stages

    @property
    def ttft_ratio(self) -> float:
        """Measured over fitted time to the first token."""
        return self.took.ttft_ms / self.fitted.ttft_ms

    @property
    def total_ratio(self) -> float:
        """The same of the whole answer."""
        return self.took.total_ms / self.fitted.total_ms

    @property
    def age_s(self) -> float:
        """Seconds since it was done."""
        age = time.time() - self.time_s
        return age if age >= 0 else UNKNOWN_AGE_S


def compared(
    loaded: Loaded, model: LatencyModel, entries: Sequence[Entry[LiveRequest]]
) -> tuple[list[Compared], dict[str, int]]:
    """Those that the model speaks of, and how many others there are by what keeps them out.

    A model of single requests says nothing of a conversation's later turns, of several answers at
    once, or of the first call of a graph.
    """

    @lru_cache
    def settings(point: str) -> Settings:
        return resolve(point_of(point), loaded.manifest, loaded.baselines)

    found, left_out = [], Counter[str]()
    for entry in entries:
        request = entry.value
        if why := _unlike(request):
            left_out[why] += 1
            continue
        try:
            under = settings(request.point)
            scored = scoring(under.policy)
            beginnings = Beginnings(
                marks=tuple(Mark(num_ids, images) for num_ids, images in request.marks),
                kept=frozenset((num_ids, scored) for num_ids in request.reused),
                wholes=request.wholes,
            )
            work = work_of(
                loaded,
                request.num_ids,
                request.images,
                under,
                request.completion_tokens,
                beginnings,
            ).work
        except InputError:  # a selector that was plugged in then
            left_out["at points that this model does not have"] += 1
            continue
        if model.unmeasured(work):
            left_out["with parts that were not measured"] += 1
            continue
        found.append(Compared(time_s=entry.time_s, took=request.took, fitted=model.stages(work)))
    return found, dict(left_out)


def _unlike(request: LiveRequest) -> str:
    """Why no model of single requests speaks of it; "" where one does."""
    if request.cold:
        return "the first of their kind in a process"
    if request.later_turn:
        return "later turns of a conversation"
    return "several answers at once" if request.answers > 1 else ""
