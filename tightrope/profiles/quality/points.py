"""Which operating points race: what a bundle offers, nearest to spending everything first."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tightrope.bundle import Manifest
from tightrope.plugins.slot_attention.policies import POLICIES
from tightrope.point import OperatingPoint, keep_count
from tightrope.runtime.baselines import BASELINES
from tightrope.runtime.candidates import KEEPS

MOST_RESOLUTIONS = 4
MOST_CAPS = 2
LEAST_CAP = 4
"""Tokens; a shorter thought is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thoughts:
    """What is known of a bundle's thoughts before the race."""

    can_be_left_out: bool
    """Whether its chat template offers an answer without one."""
    longest: int
    """Tokens of the longest one that was seen."""


def choose_points(
    manifest: Manifest, thoughts: Thoughts, kv_budgets: Sequence[int] = ()
) -> tuple[OperatingPoint, ...]:
    """All points, in an order of which any beginning is a good choice of fewer.

    Each axis lists its values, the most telling first, and points come by the sum of their places:
    first `unpruned`, then those one step away on each axis, then two steps.
    """
    thinkings, resolutions = _thinking(thoughts), _resolutions(manifest)
    keeps, methods, budgets = _keeps(manifest), _methods(manifest), _budgets(kv_budgets)
    axes = (thinkings, resolutions, keeps, methods, budgets)
    places = itertools.product(*(range(len(axis)) for axis in axes))
    found: dict[OperatingPoint, None] = {}
    for t, r, k, m, b in sorted(places, key=lambda place: (sum(place), place)):
        thinking, resolution, keep = thinkings[t], resolutions[r], keeps[k]
        method, budget = methods[m], budgets[b]
        if _says_it_again(manifest, keep, resolution):
            continue
        point = replace(budget, resolution=resolution, thinking_tokens=thinking)
        if keep is not None:
            point = replace(point, selector=method, keep=keep)
        found.setdefault(point)
    return tuple(found)


def _resolutions(manifest: Manifest) -> list[int | None]:
    """The highest, the lowest, and some between."""
    if manifest.vision is None:
        return [None]
    listed = sorted(manifest.vision.resolutions)
    count, last = min(MOST_RESOLUTIONS, len(listed)), len(listed) - 1
    spread = [listed[round(i * last / max(1, count - 1))] for i in range(count)]
    return list(dict.fromkeys([max(listed), *spread]))


def _methods(manifest: Manifest) -> list[str | None]:
    if manifest.vision is None:
        return [None]
    return [*manifest.selectors, *manifest.schedules] or [next(iter(BASELINES))]


def _keeps(manifest: Manifest) -> list[str | None]:
    return [None] if manifest.vision is None else [None, "25%", "12.5%", "50%"]


def _says_it_again(manifest: Manifest, keep: str | None, resolution: int | None) -> bool:
    """Whether another percentage leaves as many tokens of a small image."""
    if keep is None or resolution is None or manifest.tower is None:
        return False
    available = manifest.tower.most_tokens(resolution)
    count = keep_count(keep, available)
    larger = KEEPS[: KEEPS.index(keep)]
    return count == available or count in (keep_count(other, available) for other in larger)


def _thinking(thoughts: Thoughts) -> list[int | None]:
    """Free, none, and caps that would have closed the longest thoughts."""
    none = [0] if thoughts.can_be_left_out else []
    caps = _caps(thoughts.longest)
    return [None, *none, *caps]


def _caps(longest: int) -> Iterator[int]:
    """Powers of two below the longest thought, the largest first."""
    power = 1 << max(0, (longest - 1).bit_length() - 1)
    for _ in range(MOST_CAPS):
        if LEAST_CAP <= power < longest:
            yield power
        power >>= 1


def _budgets(kv_budgets: Sequence[int]) -> list[OperatingPoint]:
    """No budget, then each under every policy."""
    limited = (
        OperatingPoint(kv_budget=budget, policy=policy)
        for budget in kv_budgets
        for policy in POLICIES
    )
    return [OperatingPoint(), *limited]
