"""How far requests drifted from what the latency file says, and how far answers from unpruned ones.

Requests that follow each other are alike: the board is as hot, the same load runs beside it. Their
differences are therefore averaged in batches of neighbours, and the interval is Student's over the
batches' means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from math import sqrt
from pathlib import Path
from statistics import NormalDist, fmean, stdev
from typing import TYPE_CHECKING, Any, Literal

from tightrope.errors import ProfileError
from tightrope.latency import Stages
from tightrope.latency_file import LatencyKey, read_latency
from tightrope.live_file import Agreement, keys_of, live_file, read_agreements, read_requests
from tightrope.paired import interval95
from tightrope.runtime.compared import Compared
from tightrope.runtime.key import latency_key
from tightrope.runtime.pace import REMEMBERED, Pace
from tightrope.schemas import versioned

if TYPE_CHECKING:
    from tightrope.runtime.model import Model

BATCHES = 20
LEAST = 8
"""Requests below which no interval is told."""
Verdict = Literal["slower", "faster", "as measured", "too few"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """One stage, measured beside predicted; means in milliseconds."""

    stage: str
    observed_ms: float
    predicted_ms: float
    difference_ms: float
    interval_ms: tuple[float, float] | None
    """Of the mean difference, 95 %."""

    @property
    def ratio(self) -> float | None:
        """Observed over predicted; None where nothing was predicted."""
        return self.observed_ms / self.predicted_ms if self.predicted_ms else None

    @property
    def verdict(self) -> Verdict:
        """What the interval says."""
        if self.interval_ms is None:
            return "too few"
        low, high = self.interval_ms
        return "slower" if low > 0 else "faster" if high < 0 else "as measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreed:
    """How often the answers at one point said what the unpruned ones said."""

    point: str
    """As `point_text` writes it."""
    answers: int
    same: float
    interval: tuple[float, float]
    """Of that share, 95 %."""
    token_agreement: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveReport:
    """What the rings of one machine say."""

    key: LatencyKey
    measured: str
    """When the latency file was made."""
    requests: int
    """That are kept."""
    compared: int
    left_out: dict[str, int]
    newest_s: float | None
    """Since the last one that is compared."""
    pace: float
    """That a process which started now would plan by: observed over predicted time in all."""
    stages: tuple[Drift, ...]
    agreement: tuple[Agreed, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values with a schema number."""
        stages = [
            asdict(drift) | {"ratio": drift.ratio, "verdict": drift.verdict}
            for drift in self.stages
        ]
        return versioned("live", asdict(self) | {"stages": stages})


def live_report(model: Model) -> LiveReport:
    """What was kept of requests on this machine, beside its latency file.

    Raises ProfileError where there is no such file, where nothing was kept, and for damaged ones.
    """
    bundle, key = model.bundle, latency_key(model.bundle, model.backend)
    record, file = read_latency(bundle, key), live_file(bundle)
    entries = read_requests(file, key)
    if not entries:
        raise ProfileError(missing_live(file, key))
    found, left_out = model.compared(record.model, entries)
    pace = Pace(record.model.total)
    pace.resume([(done.age_s, done.total_ratio) for done in found[-REMEMBERED:]])
    return LiveReport(
        key=key,
        measured=record.date,
        requests=len(entries),
        compared=len(found),
        left_out=left_out,
        newest_s=found[-1].age_s if found else None,
        pace=pace.level,
        stages=drifts(found),
        agreement=agreed([entry.value for entry in read_agreements(file, key)]),
    )


def missing_live(file: Path, key: LatencyKey) -> str:
    """That nothing was kept for `key`, and for what else something was."""
    others = [str(other) for other in keys_of(file) if other != key]
    there = f"; there is something for {'; '.join(others)}" if others else ""
    return (
        f"{file} has no requests of {key} to this bundle{there}: they are kept as they come, of "
        "every model that is not loaded with live=False"
    )


def drifts(found: Sequence[Compared]) -> tuple[Drift, ...]:
    """Each stage, then the first token and the whole; the oldest request first. Empty of none."""
    if not found:
        return ()
    names = [*Stages.__dataclass_fields__, "ttft_ms", "total_ms"]
    return tuple(_drift(name, found) for name in names)


def _drift(name: str, found: Sequence[Compared]) -> Drift:
    observed = [float(getattr(done.took, name)) for done in found]
    predicted = [float(getattr(done.fitted, name)) for done in found]
    differences = [one - other for one, other in zip(observed, predicted, strict=True)]
    return Drift(
        stage=name.removesuffix("_ms"),
        observed_ms=fmean(observed),
        predicted_ms=fmean(predicted),
        difference_ms=fmean(differences),
        interval_ms=interval_of_mean(differences),
    )


def interval_of_mean(values: Sequence[float]) -> tuple[float, float] | None:
    """Its 95 % interval by the means of batches of neighbours; None of fewer than `LEAST`."""
    if len(values) < LEAST:
        return None
    batches = min(BATCHES, len(values))
    ends = [len(values) * number // batches for number in range(batches + 1)]
    means = [fmean(values[start:end]) for start, end in pairwise(ends)]
    half = _student(batches - 1) * stdev(means) / sqrt(batches)
    return fmean(values) - half, fmean(values) + half


def _student(freedom: int) -> float:
    """Student's 97.5 % quantile: two terms of its expansion about the normal one's.

    Abramowitz and Stegun, 26.7.5; within 0.4 % from 7 degrees of freedom on.
    """
    z = NormalDist().inv_cdf(0.975)
    first = (z**3 + z) / (4 * freedom)
    return z + first + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def agreed(agreements: Sequence[Agreement]) -> tuple[Agreed, ...]:
    """Point by point, those with most answers first."""
    points = dict.fromkeys(agreement.point for agreement in agreements)
    found = []
    for point in points:
        these = [agreement for agreement in agreements if agreement.point == point]
        same = sum(agreement.same for agreement in these)
        found.append(
            Agreed(
                point=point,
                answers=len(these),
                same=same / len(these),
                interval=interval95(same, len(these)),
                token_agreement=fmean(agreement.token_agreement for agreement in these),
            )
        )
    return tuple(sorted(found, key=lambda entry: -entry.answers))
