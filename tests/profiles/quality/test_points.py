"""The table of points: what a bundle offers, the most telling first."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tightrope.plugins.slot_attention.policies import POLICIES
from tightrope.point import OperatingPoint, keep_count
from tightrope.profiles.quality.points import Thoughts, choose_points
from tightrope.runtime.candidates import unpruned
from tightrope.runtime.model import Model
from tightrope.runtime.settings import resolve

Load = Callable[[str], Model]
FREE = Thoughts(can_be_left_out=False, longest=0)
DEEP = Thoughts(can_be_left_out=True, longest=40)


def test_everything_comes_first_and_all_points_differ_and_fit(loaded: Load) -> None:
    manifest = loaded("llava").bundle.manifest
    points = choose_points(manifest, DEEP, (200,))
    assert points[0] == unpruned(manifest) == OperatingPoint(resolution=84)
    assert len(set(points)) == len(points)
    for point in points:
        resolve(point, manifest)


def test_no_two_points_keep_as_many_tokens_by_one_method(loaded: Load) -> None:
    manifest = loaded("llava").bundle.manifest
    tower = manifest.tower
    assert tower is not None
    kept = []
    for point in choose_points(manifest, FREE):
        available = tower.most_tokens(point.resolution or 0)
        count = available if point.keep is None else keep_count(str(point.keep), available)
        kept.append((point.resolution, point.selector, count))
        assert point.selector is None or count < available
    assert len(set(kept)) == len(kept)


def test_each_axis_is_touched_early(loaded: Load) -> None:
    manifest = loaded("llava").bundle.manifest
    few = choose_points(manifest, DEEP)[:8]
    assert {point.resolution for point in few} >= {84, 28}
    assert {point.thinking_tokens for point in few} >= {None, 0}
    assert len({point.selector for point in few}) >= 3
    whole = choose_points(manifest, DEEP)
    assert {point.selector for point in whole} == {
        None,
        *manifest.selectors,
        *manifest.schedules,
    }
    assert {point.keep for point in whole} == {None, "50%", "25%", "12.5%"}


@pytest.mark.parametrize(
    ("thoughts", "caps"),
    [
        (FREE, [None]),
        (Thoughts(can_be_left_out=True, longest=0), [None, 0]),
        (Thoughts(can_be_left_out=True, longest=4), [None, 0]),
        (Thoughts(can_be_left_out=True, longest=5), [None, 0, 4]),
        (Thoughts(can_be_left_out=False, longest=32), [None, 16, 8]),
        (Thoughts(can_be_left_out=True, longest=33), [None, 0, 32, 16]),
    ],
)
def test_caps_lie_below_the_longest_thought(
    loaded: Load, thoughts: Thoughts, caps: list[int | None]
) -> None:
    points = choose_points(loaded("llama").bundle.manifest, thoughts)
    assert [point.thinking_tokens for point in points] == caps
    assert all(point.resolution is None and point.selector is None for point in points)


def test_budgets_are_tried_under_every_policy(loaded: Load) -> None:
    points = choose_points(loaded("llama").bundle.manifest, FREE, (128, 64))
    assert points[0] == OperatingPoint()
    assert [(point.kv_budget, point.policy) for point in points[1:]] == [
        (budget, policy) for budget in (128, 64) for policy in POLICIES
    ]
