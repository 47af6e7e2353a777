"""Which requests are measured: few that span what costs time, the most telling first."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from tightrope.bundle import Manifest
from tightrope.point import OperatingPoint
from tightrope.profiles.latency.pictures import Source, sources
from tightrope.runtime.baselines import BASELINES

MOST_POINTS = 30
MOST_RESOLUTIONS = 4
ANSWER = 9
"""Tokens of an answer that is not about decoding: eight steps."""
LEAST_BUDGET = 64
"""Slots that every policy can protect its own of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One kind of request."""

    name: str
    text_tokens: int
    """About so many."""
    sources: tuple[Source, ...] = ()
    again: bool = False
    """Whether the images are those of the request before."""
    completion_tokens: int = ANSWER
    point: OperatingPoint | None = None


def choose_points(manifest: Manifest) -> tuple[Point, ...]:
    """At most MOST_POINTS; any of its beginnings is as good a choice of fewer."""
    text, seeing = list(_of_text(manifest)), list(_of_images(manifest))
    # In turn, so that a slow machine measures some of both.
    pairs = itertools.zip_longest(seeing, text) if seeing else ((None, point) for point in text)
    chosen = [point for pair in pairs for point in pair if point is not None]
    return tuple(_together(chosen[:MOST_POINTS]))


def _together(points: list[Point]) -> Iterator[Point]:
    """A request that repeats images right behind the one whose images they are."""
    repeats = [point for point in points if point.again]
    for point in points:
        if not point.again:
            yield point
            followers = [other for other in repeats if other.sources == point.sources != ()]
            for other in followers:
                repeats.remove(other)
                yield other


def _of_text(manifest: Manifest) -> Iterator[Point]:
    """Lengths of prompts and answers, and budgets."""
    chunk, slots = manifest.prefill_chunk, manifest.slots
    room = slots - 2 * ANSWER
    most = max(4, room * 3 // 4)
    long = min(chunk * 5 // 3, most)
    budget = OperatingPoint(kv_budget=min(slots, max(LEAST_BUDGET, chunk // 4)))
    wide = OperatingPoint(kv_budget=min(slots, max(LEAST_BUDGET, chunk // 2)))

    def text(share: float, **more: object) -> Point:
        tokens = max(4, min(round(chunk * share), most))
        return Point(name=f"text of {tokens}", text_tokens=tokens, **more)  # type: ignore[arg-type]

    yield text(1 / 16, completion_tokens=49)
    yield text(0.8)
    yield text(1 / 4)
    yield Point(name=f"text of {long}", text_tokens=long, completion_tokens=33)
    yield text(0.6, point=budget, completion_tokens=33)
    yield text(0.45)
    yield text(1 / 8, completion_tokens=33)
    yield text(0.9, point=wide)
    yield text(0.3, point=budget)
    yield Point(name=f"text of {long}, budget", text_tokens=long, point=wide)


def _of_images(manifest: Manifest) -> Iterator[Point]:
    """Resolutions, selectors and keeps; every point takes the next kind of picture."""
    if manifest.vision is None:
        return
    kinds = itertools.cycle(sources())
    lengths = itertools.cycle((8, 24, 16, 40))
    few = _spread_out(sorted(manifest.vision.resolutions))
    low, high = few[0], few[-1]
    selectors = [*manifest.selectors]

    def seen(resolution: int, method: str | None = None, keep: str | None = None) -> Point:
        source = next(kinds)
        how = "all tokens" if method is None else f"{method} {keep}"
        return Point(
            name=f"{source.format} of {source.width} x {source.height} at {resolution}, {how}",
            text_tokens=next(lengths),
            sources=(source,),
            point=OperatingPoint(selector=method, keep=keep, resolution=resolution),
        )

    first = seen(high)
    yield first
    yield from (seen(high, method, "25%") for method in selectors)
    yield from (seen(resolution) for resolution in few[-2::-1])
    yield from (seen(low, method, "50%") for method in selectors)
    yield seen(high, next(iter(BASELINES)), "12%")
    yield Point(
        name=f"{first.name}, seen before",
        text_tokens=first.text_tokens,
        sources=first.sources,
        again=True,
        point=first.point,
    )
    for schedule in manifest.schedules:
        yield from (seen(high, schedule, "50%"), seen(low, schedule, "25%"))
    yield from (seen(high, method, "60%") for method in selectors)
    pair = seen(low)
    yield Point(
        name=f"two: {pair.name}",
        text_tokens=pair.text_tokens,
        sources=pair.sources * 2,
        point=pair.point,
    )
    yield from (seen(low, method, "20%") for method in selectors)
    yield from (seen(low, next(iter(BASELINES)), "20%"), seen(high), seen(low))


def _spread_out(resolutions: list[int]) -> list[int]:
    """At most MOST_RESOLUTIONS of them, the smallest and the largest among them."""
    count = min(MOST_RESOLUTIONS, len(resolutions))
    last = len(resolutions) - 1
    return [resolutions[round(i * last / max(1, count - 1))] for i in range(count)]
