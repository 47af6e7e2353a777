"""The join of what points are worth with what they take here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tightrope.errors import InputError
from tightrope.latency_file import (
    LatencyKey,
    LatencyRecord,
    latency_file,
    missing_latency,
    read_latency,
)
from tightrope.point import OperatingPoint
from tightrope.profiles.frontier.frontier import Frontier, Order, Row, marked
from tightrope.profiles.frontier.took import measured, predicted
from tightrope.profiles.frontier.typical import Typical
from tightrope.profiles.latency.goodput import Slos
from tightrope.profiles.latency.measured import PointRuns, PointsRecord, find_points
from tightrope.profiles.quality.agreement import rank_correlation
from tightrope.quality_file import MeasuredPoint, Quality, find_quality
from tightrope.runtime.candidates import assumed_points, unpruned
from tightrope.runtime.key import latency_key
from tightrope.runtime.settings import resolve

if TYPE_CHECKING:
    from tightrope.runtime.count import Count
    from tightrope.runtime.model import Model


def make_frontier(
    model: Model, request: Typical, *, task: str | None = None, slos: Slos | None = None
) -> Frontier:
    """All that is known of the bundle's points on this machine.

    task: the name of the one that quality is taken from; None: the only one there is.
    slos: promises that measured runs are counted by.
    Raises ProfileError for measurements that are damaged, of another bundle or of another machine,
    and where it is open which task is meant.
    """
    return joined(model, request, read_sources(model, task), slos)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What was measured of a bundle, and what of it on one machine."""

    key: LatencyKey
    quality: Quality | None
    latency: LatencyRecord | None
    points: PointsRecord | None
    """Runs from end to end by the questions of the same task."""


def read_sources(model: Model, task: str | None) -> Sources:
    """All that there is for this machine; raises ProfileError as `make_frontier`."""
    bundle, key = model.bundle, latency_key(model.bundle, model.backend)
    quality = find_quality(bundle, task)
    return Sources(
        key=key,
        quality=quality,
        latency=read_latency(bundle, key) if latency_file(bundle, key).exists() else None,
        points=find_points(bundle, key, None if quality is None else quality.key.task),
    )


def joined(model: Model, request: Typical, sources: Sources, slos: Slos | None = None) -> Frontier:
    """What was measured, point by point; arguments as of `make_frontier`."""
    bundle, quality, runs = model.bundle, sources.quality, sources.points
    join = _Join(model, request, sources.latency, () if runs is None else runs.points, slos or {})
    rows = join.rows(() if quality is None else quality.points)
    untimed = None
    if sources.latency is None and any(row.took is None for row in rows):
        untimed = missing_latency(bundle, sources.key)
    order: Order = "tokens" if all(row.took is None for row in rows) else "total_p95_ms"
    return Frontier(
        bundle=str(bundle.path),
        key=sources.key,
        task=None if quality is None else quality.key,
        request=request,
        order=order,
        rows=marked(rows, order),
        slos=slos or {},
        untimed=untimed,
        agreement=None if quality is None else rank_correlation(quality, unpruned(bundle.manifest)),
    )


class _Join:
    """Both halves, point by point."""

    def __init__(
        self,
        model: Model,
        request: Typical,
        record: LatencyRecord | None,
        runs: Sequence[PointRuns],
        slos: Slos,
    ) -> None:
        self._model, self._request, self._record, self._slos = model, request, record, slos
        self._runs = {self._spent(found.point): found for found in runs}

    def rows(self, points: Sequence[MeasuredPoint]) -> list[Row]:
        """Of `points`, then of others whose time was measured.

        Where there are neither, of those that a planner would choose from.
        """
        known = {self._spent(asked.point) for asked in points}
        others = [found.point for spent, found in self._runs.items() if spent not in known]
        if not points and not others:
            others = assumed_points(self._model.bundle.manifest)
        rows = [self._row(asked.point, asked) for asked in points]
        return rows + [self._row(point, None) for point in others]

    def _row(self, point: OperatingPoint, asked: MeasuredPoint | None) -> Row:
        lengths = [] if asked is None else [found.completion_tokens for found in asked.outcomes]
        lengths = lengths or [self._request.completion_tokens]
        took, count = None, None
        notes: tuple[str, ...] = ()
        try:
            count = self._count(point, max(1, *lengths))
        except InputError as error:
            notes = (f"it cannot be asked the typical request: {error}",)
        if (runs := self._runs.get(self._spent(point))) is not None:
            took = measured(runs, self._slos)
        elif self._record is not None and count is not None:
            model = self._record.model
            took = predicted(model, count.work, lengths, self._record.power)
            notes = tuple(
                f"{part} was not measured and is predicted as the dearest of its kind"
                for part in model.unmeasured(count.work)
            )
        return Row(point=point, asked=asked, took=took, count=count, notes=notes)

    def _count(self, point: OperatingPoint, max_tokens: int) -> Count:
        request = self._request
        return self._model.count(request.prompt, request.images, max_tokens=max_tokens, point=point)

    def _spent(self, point: OperatingPoint) -> OperatingPoint:
        """The point with its "None" resolved, by which its measurements find each other."""
        try:
            return resolve(point, self._model.bundle.manifest).point
        except InputError:
            return point
