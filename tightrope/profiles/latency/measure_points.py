"""Measure what operating points take on this machine, from the encoded image to the last token.

Every point is asked the same request in a round, round after round, so that a machine that grows
slower meanwhile does so for all of them. Before the rounds each point is asked once unmeasured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from tightrope.checks import check_whole
from tightrope.errors import InputError
from tightrope.point import OperatingPoint, in_words
from tightrope.profiles.latency.measured import Asked, PointRuns, PointsRecord, Run
from tightrope.profiles.latency.profile import installed_packages
from tightrope.profiles.latency.repeat import repeated
from tightrope.profiles.measure import Request, measure
from tightrope.profiles.peak_memory import peak_memory_bytes, reset_peak_memory
from tightrope.progress import Progress, silent
from tightrope.quality_file import point_text
from tightrope.runtime.key import latency_key

if TYPE_CHECKING:
    from tightrope.runtime.answer import Answer
    from tightrope.runtime.model import Model
    from tightrope.runtime.options import ImageSource

LEAST_RUNS = 20
"""Of every point: below, a p95 is the slowest run."""


def measure_points(
    model: Model,
    requests: Sequence[Request],
    points: Sequence[OperatingPoint],
    asked: Asked,
    *,
    runs: int = LEAST_RUNS,
    progress: Progress = silent,
    clock: Callable[[], float] = time.monotonic,
) -> PointsRecord:
    """What `points` take here, each `runs` times end to end.

    requests: taken in turn, the same one for all points of a round; their own point does not count.
    Image files are read before, and decoded anew in each run; no image is known from before.
    asked: whose questions they are. clock: seconds.
    Raises InputError, before anything is asked, for too few runs, for points that are missing or
    named twice, and for a request that the bundle cannot be asked at a point.
    """
    _check(requests, points, runs)
    started = clock()
    rounds = [_held(request) for request in requests[:runs]]
    for point in points:
        for request in rounds:
            _check_asked(model, request, point)
    peaks: list[int | None] = []
    answers = measure(
        model,
        _requests(model, rounds, points, 1 + runs, peaks),
        total=(1 + runs) * len(points),
        progress=progress,
    )
    found = [_run(answer, peak) for answer, peak in zip(answers, peaks, strict=True)]
    energies = [repeated(model, rounds, point) for point in points]
    return PointsRecord(
        key=latency_key(model.bundle, model.backend),
        asked=asked,
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        seconds=float(clock() - started),
        packages=installed_packages(),
        points=tuple(
            PointRuns(
                text=point_text(point),
                runs=tuple(found[len(points) + place :: len(points)]),
                repeated=energies[place],
            )
            for place, point in enumerate(points)
        ),
    )


def _check(requests: Sequence[Request], points: Sequence[OperatingPoint], runs: int) -> None:
    check_whole("runs", runs, least=LEAST_RUNS)
    if not requests:
        raise InputError("requests is empty; accepted: one request or more")
    if not points or len(set(points)) != len(points):
        raise InputError(f"points has {len(points)}, none or one twice; accepted: different points")


def _check_asked(model: Model, request: Request, point: OperatingPoint) -> None:
    try:
        model.count(
            request.prompt,
            request.images,
            frames=request.frames,
            max_tokens=request.max_tokens,
            thinking=request.thinking,
            point=point,
        )
    except InputError as error:
        raise InputError(
            f"request {request.name!r} cannot be asked at {in_words(point)}: {error}"
        ) from error


def _requests(
    model: Model,
    rounds: Sequence[Request],
    points: Sequence[OperatingPoint],
    number: int,
    peaks: list[int | None],
) -> Iterator[Request]:
    """`number` rounds; behind every request its peak of memory is added to `peaks`."""
    for turn in range(number):
        request = rounds[turn % len(rounds)]
        for point in points:
            model.forget_images()
            model.forget_prefixes()
            known = reset_peak_memory()
            yield replace(request, point=point)
            peaks.append(peak_memory_bytes() if known else None)


def _held(request: Request) -> Request:
    """The request with its image files in memory, still encoded."""
    frames = [(seconds, _encoded(image)) for seconds, image in request.frames]
    return replace(request, images=[_encoded(image) for image in request.images], frames=frames)


def _encoded(image: ImageSource) -> ImageSource:
    if not isinstance(image, Path):
        return image
    try:
        return image.read_bytes()
    except OSError as error:
        raise InputError(f"image {str(image)!r} cannot be read ({error.strerror})") from error


def _run(answer: Answer, peak: int | None) -> Run:
    usage = answer.usage
    return Run(
        stages=answer.timings.stages(),
        completion_tokens=usage.completion_tokens,
        occupied_slots=usage.occupied_slots,
        slot_bytes=usage.slot_bytes,
        peak_memory_bytes=peak,
        energy_j=answer.energy_j,
    )
