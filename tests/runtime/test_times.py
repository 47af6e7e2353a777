"""The table of fitted times: one row for all images of which a tower makes the same tokens."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest

from tightrope.latency import SourceImage
from tightrope.runtime.candidates import candidates_of
from tightrope.runtime.lengths import Lengths
from tightrope.runtime.loaded import Loaded
from tightrope.runtime.model import Model
from tightrope.runtime.times import TimeTable

Load = Callable[[str], Model]
IDS = [7, 4, 8, 9]


def png(width: int, height: int, pictures: int = 1) -> SourceImage:
    return SourceImage(
        format="PNG", width=width, height=height, encoded_bytes=width * height, pictures=pictures
    )


@pytest.fixture
def table(
    loaded: Load, parts_of: Callable[[Model], Loaded], synthetic: ModuleType
) -> Callable[[str], TimeTable]:
    def make(name: str) -> TimeTable:
        parts = parts_of(loaded(name))
        entries = list(candidates_of(parts.manifest, None))
        return TimeTable(parts, synthetic.MODEL, entries, Lengths(entries, {}))

    return make


def test_a_square_tower_sees_images_of_all_sizes_alike(table: Callable[[str], TimeTable]) -> None:
    times = table("llava")
    first = times.times(IDS, [png(640, 480)], 8)
    for number in range(20):
        assert times.times(IDS, [png(641 + number, 480)], 8) is first
    # What the source itself takes is counted apart.
    small, large = (times.sources_ms([png(*size)]) for size in ((640, 480), (1920, 1080)))
    assert (large > small).all()


def test_other_tiles_are_other_rows(table: Callable[[str], TimeTable]) -> None:
    times = table("smolvlm")
    wide = times.times(IDS, [png(100, 60)], 8)
    assert times.times(IDS, [png(200, 120)], 8) is wide
    square = times.times(IDS, [png(100, 100)], 8)
    assert square is not wide and (square.ttft > wide.ttft).any()


def test_what_is_tabled_and_what_the_source_takes_make_up_the_whole(
    table: Callable[[str], TimeTable],
) -> None:
    times = table("llava")
    times.times(IDS, [png(56, 56)], 8)
    shown = png(1920, 1080)
    ttft = times.times(IDS, [shown], 8).ttft + times.sources_ms([shown])
    assert len(times._alike) == 1  # the row was made for another image
    fresh = table("llava")
    wanted = fresh.times(IDS, [shown], 8).ttft + fresh.sources_ms([shown])
    np.testing.assert_allclose(ttft, wanted, rtol=1e-12)


def test_a_pair_of_frames_is_prepared_twice(table: Callable[[str], TimeTable]) -> None:
    times = table("qwen3_vl")
    single, pair = (times.times(IDS, [png(90, 50, count)], 8) for count in (1, 2))
    assert (pair.ttft > single.ttft).all()


def test_an_image_that_no_tower_takes_fits_no_point(table: Callable[[str], TimeTable]) -> None:
    times = table("smolvlm")
    assert np.isinf(times.times(IDS, [png(4000, 10)], 8).ttft).all()
