"""What points cost, so that none leaves the race for one that is slower or takes more slots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING

from tightrope.errors import InputError, ProfileError
from tightrope.latency import LatencyModel, Workload
from tightrope.latency_file import read_latency
from tightrope.point import OperatingPoint
from tightrope.profiles.task.task import Item
from tightrope.runtime.key import latency_key

if TYPE_CHECKING:
    from tightrope.runtime.model import Model

Cost = tuple[float, ...]
SAMPLE = 4
"""Questions whose work is counted at each point."""


class Costs:
    """Milliseconds predicted by what was measured on this machine, and slots.

    Where nothing was measured: pixels, tokens read, tokens written, and slots, each on its own. A
    point that spends less of one and more of another is then neither dearer nor cheaper.
    """

    def __init__(
        self, model: Model, points: Sequence[OperatingPoint], items: Sequence[Item]
    ) -> None:
        """Raises InputError for a point that the bundle or the first questions do not allow."""
        self._slots = model.bundle.manifest.slots
        self._works = {
            point: [work_of(model, point, item) for item in items[:SAMPLE]] for point in points
        }
        self.note: str | None = None
        """Why time was not predicted."""
        self._latency: LatencyModel | None = None
        try:
            record = read_latency(model.bundle, latency_key(model.bundle, model.backend))
            self._latency = record.model
        except ProfileError as error:
            self.note = str(error)

    def of(self, lengths: Mapping[OperatingPoint, float]) -> dict[OperatingPoint, Cost]:
        """What each point spends. lengths: its mean completion tokens."""
        return {point: self._of(point, length) for point, length in lengths.items()}

    def _of(self, point: OperatingPoint, length: float) -> Cost:
        tokens = max(1, round(length))
        works = [replace(work, completion_tokens=tokens) for work in self._works[point]]
        budget = self._slots if point.kv_budget is None else point.kv_budget
        slots = float(max(budget) if isinstance(budget, tuple) else budget)
        if self._latency is not None:
            total = fmean(self._latency.predict(work).total.mean_ms for work in works)
            return total, slots
        pixels = fmean(len(work.images) * (work.resolution or 0) ** 2 for work in works)
        read = fmean(sum(call.tokens for call in work.prefill) for work in works)
        return pixels, read, float(tokens), slots


def work_of(model: Model, point: OperatingPoint, item: Item) -> Workload:
    """What reading a question takes; raises InputError naming one that cannot be asked."""
    try:
        return model.count(
            item.messages, item.stills, frames=item.frames, max_tokens=1, point=point
        ).work
    except InputError as error:
        raise InputError(f"question {item.id!r} cannot be asked: {error}") from error
