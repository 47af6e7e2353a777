"""Measure what requests take on this machine, and fit the model that predicts them.

All points are asked in turn, round after round, so that a machine that grows slower meanwhile does
so for all of them. The first round warms up; a point for which there is no time is left out.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from tightrope.errors import InputError
from tightrope.latency import Workload
from tightrope.latency_file import LatencyRecord
from tightrope.profiles.latency.config import LatencyConfig
from tightrope.profiles.latency.drawn import draw_points
from tightrope.profiles.latency.fit import Measured
from tightrope.profiles.latency.held_out import fit_with_spread
from tightrope.profiles.latency.pictures import Source, draw
from tightrope.profiles.latency.points import Point, choose_points
from tightrope.profiles.latency.power import Ran, fit_power
from tightrope.profiles.measure import Request, measure
from tightrope.progress import Progress, silent
from tightrope.runtime.backends.availability import installed_version
from tightrope.runtime.key import latency_key

if TYPE_CHECKING:
    from tightrope.power import PowerModel
    from tightrope.runtime.answer import Answer
    from tightrope.runtime.model import Model
    from tightrope.runtime.options import ImageSource

LEAST_RUNS = 3
"""Measured requests of every point."""
MOST_RUNS = 20
LEAST_POINTS = 6
EACH = 3
"""Kinds of request that are measured for one that is drawn at random, once each has LEAST_RUNS."""
MOST_DRAWN = 400
"""Of so many, the share of the next above the p95 lies within about a point of 5 % by luck."""
QUESTION = "what is left of the red cup and how many stars are there"
PACKAGES = ("tightrope", "onnxruntime", "onnxruntime-gpu", "numpy", "pillow")


def profile_latency(
    model: Model,
    config: LatencyConfig,
    *,
    progress: Progress = silent,
    clock: Callable[[], float] = time.monotonic,
) -> LatencyRecord:
    """What requests take here: measured within `config.minutes`, fitted, and held out.

    clock: seconds, by which the time is kept.
    Raises InputError where there was too little time.
    """
    started = clock()
    session = _Session(model, config, clock)
    answers = measure(
        model,
        session.requests(),
        total=1,
        progress=lambda what, _: progress(what, session.share()),
    )
    points = session.measured(answers)
    if len(points) < LEAST_POINTS:
        raise InputError(
            f"minutes is {config.minutes}: {len(points)} kinds of request could be measured "
            f"{LEAST_RUNS} times; accepted: enough for {LEAST_POINTS}"
        )
    fitted, held_out = fit_with_spread(points, session.drawn(answers))
    return LatencyRecord(
        key=latency_key(model.bundle, model.backend),
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        points=len(points),
        requests=sum(len(point.runs) for point in points),
        seconds=float(clock() - started),
        packages=installed_packages(),
        held_out=held_out,
        model=fitted,
        power=session.power(answers),
        held_back=session.held_back(),
    )


def installed_packages() -> dict[str, str]:
    """Versions of those that a measurement depends on."""
    versions = {name: installed_version(name) for name in PACKAGES}
    return {name: version for name, version in versions.items() if version}


@dataclass(slots=True)
class _Asked:
    """A request that was handed out."""

    work: Workload
    place: int | None
    """Of its point; None: it was drawn at random."""
    warm_up: bool = False


class _Session:
    """Requests round after round until the time is over."""

    def __init__(self, model: Model, config: LatencyConfig, clock: Callable[[], float]) -> None:
        self._model, self._clock, self._limit = model, clock, config.minutes * 60
        self._points = choose_points(model.bundle.manifest)
        self._more = draw_points(model.bundle.manifest)
        self._works: list[Workload] = []
        self._asked: list[_Asked] = []
        self._pictures: dict[Source, list[ImageSource]] = {}
        self._start = clock()
        self._telemetry = model.telemetry
        self._ended: list[float] = []
        """When each answer was there, by the sensors' clock."""

    def share(self) -> float:
        """Of the time that is over, at most 1."""
        return min(1.0, (self._clock() - self._start) / self._limit)

    def requests(self) -> Iterator[Request]:
        """Warm-up, then rounds; as many points as can be asked often enough."""
        seconds: list[float] = []
        for place, point in enumerate(self._points):
            if self.share() > 1 / (1 + LEAST_RUNS):
                break
            request = self._request(point)
            self._works.append(self._work(point, request))
            self._asked.append(_Asked(self._works[place], place, warm_up=True))
            started = self._clock()
            yield request
            self._note_end()
            seconds.append(self._clock() - started)
        places = range(self._fitting(seconds))
        for number in range(MOST_RUNS):
            for place in places:
                spare = number >= LEAST_RUNS and place % EACH == 0
                if spare and not self._points[place].again:
                    yield from self._drawn(max(seconds))
                if self._left() < seconds[place]:
                    return
                self._asked.append(_Asked(self._works[place], place))
                yield self._request(self._points[place])
                self._note_end()
        for _ in range(MOST_DRAWN - sum(asked.place is None for asked in self._asked)):
            yield from self._drawn(max(seconds))

    def _drawn(self, seconds: float) -> Iterator[Request]:
        """One that is drawn at random, if there is so much time."""
        if self._left() < seconds:
            return
        point = next(self._more)
        request = self._request(point)
        try:
            work = self._work(point, request)
        except InputError:  # its slots cannot hold it
            return
        self._asked.append(_Asked(work, None))
        yield request
        self._note_end()

    def _left(self) -> float:
        """Seconds."""
        return self._limit - (self._clock() - self._start)

    def _note_end(self) -> None:
        if self._telemetry is not None:
            self._ended.append(self._telemetry.clock())

    def power(self, answers: list[Answer]) -> PowerModel | None:
        """What the board drew; None where no sensor tells it, or not for long enough."""
        telemetry = self._telemetry
        if telemetry is None or telemetry.record.source is None:
            return None
        pairs = zip(self._ended, answers, strict=True)
        ran = [Ran(end_s, answer.timings.stages()) for end_s, answer in pairs]
        return fit_power(telemetry.record.source, *telemetry.record.curve(), ran)

    def held_back(self) -> tuple[str, ...]:
        """What held the board back meanwhile."""
        if self._telemetry is None or not self._ended:
            return ()
        spent = self._telemetry.record.between(self._ended[0], self._ended[-1])
        over = spent.over_current
        return (*spent.throttled, *([f"{over} over-current events"] if over else []))

    def _fitting(self, seconds: list[float]) -> int:
        """How many points, that take `seconds` each, can be asked often enough."""
        rounds = (LEAST_RUNS * total for total in itertools.accumulate(seconds))
        return sum(needed <= self._left() for needed in rounds)

    def measured(self, answers: list[Answer]) -> list[Measured]:
        """What was measured of each point that was asked often enough."""
        found = []
        for place, work in enumerate(self._works):
            runs = tuple(
                answer.timings
                for asked, answer in zip(self._asked, answers, strict=True)
                if asked.place == place and not asked.warm_up
            )
            if len(runs) >= LEAST_RUNS:
                found.append(Measured(work, runs))
        return found

    def drawn(self, answers: list[Answer]) -> list[Measured]:
        """Of the requests that were drawn at random."""
        return [
            Measured(asked.work, (answer.timings,))
            for asked, answer in zip(self._asked, answers, strict=True)
            if asked.place is None
        ]

    def _request(self, point: Point) -> Request:
        if not point.again:
            self._model.forget_images()
        images = self._images(point)
        return Request(
            name=point.name,
            prompt=self._text(point.text_tokens, len(images)),
            images=images,
            max_tokens=point.completion_tokens,
            point=point.point,
            ignore_eos=True,
        )

    def _images(self, point: Point) -> list[ImageSource]:
        """The point's pictures, each drawn once; several of a kind differ."""
        used: Counter[Source] = Counter()
        images = []
        for source in point.sources:
            drawn = self._pictures.setdefault(source, [])
            if used[source] == len(drawn):
                drawn.append(draw(source, len(drawn)))
            images.append(drawn[used[source]])
            used[source] += 1
        return images

    def _work(self, point: Point, request: Request) -> Workload:
        work = self._model.count(
            request.prompt, request.images, max_tokens=request.max_tokens, point=request.point
        ).work
        if not point.again:
            return work
        return replace(work, images=tuple(replace(image, known=True) for image in work.images))

    def _text(self, num_tokens: int, num_images: int) -> str:
        """A question of about so many tokens."""

        once = QUESTION.split()
        many = len(once)

        def words(count: int) -> str:
            return " ".join((once * (count // many + 1))[:count])

        few, more = (
            len(self._model.token_ids(words(count), num_images)) for count in (many, 2 * many)
        )
        a_word = max(1.0, (more - few) / many)
        return words(max(1, many + round((num_tokens - few) / a_word)))
