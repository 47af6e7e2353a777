"""Which requests are measured: few, valid on their bundle, and of all kinds."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import PIL.Image
import pytest

from tightrope.bundle import Stage
from tightrope.profiles.latency.drawn import PRUNED, SEEING, draw_points
from tightrope.profiles.latency.pictures import SOURCES, Source, draw, sources
from tightrope.profiles.latency.points import MOST_POINTS, Point, choose_points
from tightrope.runtime.baselines import BASELINES
from tightrope.runtime.images import image_header
from tightrope.runtime.model import Model
from tightrope.runtime.settings import resolve

Load = Callable[[str], Model]


def points_of(model: Model, **changes: Any) -> tuple[Point, ...]:
    return choose_points(replace(model.bundle.manifest, **changes))


def test_a_vision_model_is_asked_about_everything_that_costs(loaded: Load) -> None:
    model = loaded("llava")
    manifest = model.bundle.manifest
    points = points_of(model)
    assert len(points) <= MOST_POINTS
    assert len({(point.name, point.text_tokens) for point in points}) > 20
    asked = [point.point for point in points if point.point is not None]
    assert {point.selector for point in asked} >= {*manifest.selectors, *manifest.schedules, None}
    assert {point.selector for point in asked} & {*BASELINES}
    assert {point.resolution for point in asked} - {None} == {28, 56, 84}
    assert sum(point.kv_budget is not None for point in asked) >= 2
    formats = [source.format for point in points for source in point.sources]
    assert all(formats.count(name) >= 3 for name in ("JPEG", "PNG", "WEBP"))
    assert len({point.completion_tokens for point in points}) >= 3
    assert any(len(point.sources) == 2 for point in points)
    for point in asked:
        resolve(point, manifest)


def test_the_first_third_spans_what_matters_most(loaded: Load) -> None:
    few = points_of(loaded("llava"))[:10]
    methods = {point.point.selector for point in few if point.point is not None}
    assert methods >= {*loaded("llava").bundle.manifest.selectors}
    assert len({source.format for point in few for source in point.sources}) >= 3
    lengths = [point.text_tokens for point in few if not point.sources]
    assert max(lengths) > 4 * min(lengths)


def test_a_repeated_image_follows_the_request_that_showed_it(loaded: Load) -> None:
    points = points_of(loaded("llava"))
    repeats = [place for place, point in enumerate(points) if point.again]
    assert len(repeats) == 1
    assert points[repeats[0]].sources == points[repeats[0] - 1].sources
    assert points[repeats[0]].point == points[repeats[0] - 1].point


def test_a_text_model_is_asked_about_lengths_alone(loaded: Load) -> None:
    points = points_of(loaded("llama"))
    assert len(points) >= 10
    assert not any(point.sources for point in points)
    chunk = loaded("llama").bundle.manifest.prefill_chunk
    assert max(point.text_tokens for point in points) > chunk


@pytest.mark.parametrize("slots", [64, 128, 1024])
def test_prompts_leave_room_for_their_answers(loaded: Load, slots: int) -> None:
    chunk = min(512, slots)
    for point in points_of(loaded("llama"), slots=slots, prefill_chunk=chunk):
        assert point.text_tokens + 16 <= slots
        assert point.point is None or resolve(
            point.point, replace(loaded("llama").bundle.manifest, slots=slots)
        )


def test_a_bundle_of_many_methods_and_resolutions_stays_within_thirty(loaded: Load) -> None:
    manifest = loaded("llava").bundle.manifest
    info = next(iter(manifest.selectors.values()))
    assert manifest.vision is not None
    many = points_of(
        loaded("llava"),
        selectors={f"method{i}": info for i in range(9)},
        schedules={"fastv": (Stage(layer=1, share=1.0),)},
        vision=replace(manifest.vision, resolutions=tuple(range(28, 28 * 12, 28))),
    )
    assert len(many) == MOST_POINTS
    sides = {point.point.resolution for point in many if point.point} - {None}
    assert {28, 308} <= sides and len(sides) <= 4


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: f"{source.format}{source.width}")
def test_pictures_are_what_they_say_and_no_two_alike(source: Source) -> None:
    one, other = draw(source), draw(source, 1)
    header = image_header(one)
    assert (header.format, header.width, header.height) == (
        source.format,
        source.width,
        source.height,
    )
    if isinstance(one, np.ndarray):
        assert (one != other).any()
        assert header.encoded_bytes == 0
    else:
        assert isinstance(one, bytes)
        assert header.encoded_bytes == len(one)
        assert one != other


def test_a_rough_picture_makes_a_larger_file() -> None:
    smooth, rough = (draw(Source("JPEG", 640, 480, rough=rough)) for rough in (False, True))
    assert isinstance(smooth, bytes) and isinstance(rough, bytes)
    assert len(rough) > 3 * len(smooth)
    assert PIL.Image.open(io.BytesIO(rough)).size == (640, 480)


def test_a_pillow_without_webp_measures_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "WEBP" in {source.format for source in sources()}
    monkeypatch.setattr("PIL.features.check", lambda name: False)
    assert {source.format for source in sources()} == {"PNG", "JPEG", "array"}


def test_requests_drawn_at_random_are_of_all_kinds(loaded: Load) -> None:
    manifest = loaded("llava").bundle.manifest
    points = list(itertools.islice(draw_points(manifest), 300))
    assert points == list(itertools.islice(draw_points(manifest), 300))
    seen = [point for point in points if point.sources]
    assert 0.8 * SEEING < len(seen) / 300 < 1.2 * SEEING
    for point in points:
        resolve(point.point, manifest)
        assert point.completion_tokens >= 2 and point.text_tokens <= manifest.prefill_chunk
    asked = [point.point for point in seen if point.point is not None]
    assert manifest.vision is not None
    assert {point.resolution for point in asked} == {*manifest.vision.resolutions}
    assert {point.selector for point in asked} >= {*manifest.selectors, None}
    pruned = sum(point.selector is not None for point in asked)
    assert 0.8 * PRUNED < pruned / len(asked) < 1.2 * PRUNED
    assert len({source.format for point in seen for source in point.sources}) >= 3
    # Not one of the pictures that were fitted.
    assert not {source for point in seen for source in point.sources} & {*SOURCES}


def test_a_text_model_is_drawn_texts(loaded: Load) -> None:
    points = list(itertools.islice(draw_points(loaded("llama").bundle.manifest), 50))
    assert not any(point.sources for point in points)
    assert len({point.text_tokens for point in points}) > 20
