"""Points are measured from end to end on a machine whose times are known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import PIL.Image
import pytest

from tightrope.errors import InputError
from tightrope.point import OperatingPoint
from tightrope.profiles.latency import measure_points as module
from tightrope.profiles.latency.measure_points import LEAST_RUNS, measure_points
from tightrope.profiles.latency.measured import DRAWN, Asked
from tightrope.profiles.measure import Request, measure
from tightrope.runtime.key import latency_key
from tightrope.runtime.model import Model

Load = Callable[[str], Model]
ALL, SMALL = OperatingPoint(), OperatingPoint(resolution=28)
FEW = OperatingPoint(selector="visionzip", keep="25%")
TOKENS = 5


@pytest.fixture
def scripted(module_of: Callable[[Path], ModuleType]) -> ModuleType:
    return module_of(Path(__file__).with_name("scripted.py"))


@pytest.fixture
def requests(tmp_path: Path) -> list[Request]:
    """Two questions about files."""
    found = []
    for number in range(2):
        file = tmp_path / f"{number}.png"
        pixels = np.full((40, 60, 3), 90 * number, np.uint8)
        PIL.Image.fromarray(pixels).save(file)
        found.append(
            Request(
                name=f"q{number}",
                prompt="what is it ?",
                images=[file],
                max_tokens=TOKENS,
                ignore_eos=True,
            )
        )
    return found


def test_the_times_of_the_script_are_found_stage_by_stage(
    loaded: Load, scripted: Any, requests: list[Request]
) -> None:
    model, clock = scripted.scripted(loaded("llava"))
    asked = Asked(task_name="files", task="ab" * 32)
    told: list[float] = []
    record = measure_points(
        model,
        requests,
        [ALL, SMALL, FEW],
        asked,
        clock=clock,
        progress=lambda _, share: told.append(share),
    )
    assert (record.key, record.asked) == (latency_key(model.bundle, model.backend), asked)
    assert [each.point for each in record.points] == [ALL, SMALL, FEW]
    images = {ALL: 56, SMALL: 28, FEW: 56}
    for each in record.points:
        assert len(each.runs) == LEAST_RUNS
        work = model.count("what is it ?", requests[0].images, max_tokens=5, point=each.point).work
        assert each.stages.vision_ms == pytest.approx(scripted.IMAGE_MS[images[each.point]])
        select = scripted.SELECT_MS["visionzip"] if each.point == FEW else 0.0
        assert each.stages.select_ms == pytest.approx(select)
        prefill = sum(scripted.CALL_MS + scripted.TOKEN_MS * call.tokens for call in work.prefill)
        assert each.stages.prefill_ms == pytest.approx(prefill)
        vision = each.stages.vision_ms + each.stages.select_ms
        assert each.ttft.percentile(99) == pytest.approx(vision + prefill)
        decode = scripted.STEP_MS * (TOKENS - 1)
        assert decode < each.stages.decode_ms < 2 * decode
        assert each.total.median == pytest.approx(each.ttft.median + each.stages.decode_ms)
        assert each.itl is not None
        assert each.itl.median == pytest.approx(each.stages.decode_ms / (TOKENS - 1))
        assert each.energy_j is None
        assert (each.peak_memory_bytes or 1 << 30) > 1 << 20
    assert record.seconds == pytest.approx(clock.now)
    assert told == sorted(told) and len(told) == 3 * (LEAST_RUNS + 1)


def test_points_take_turns_with_the_same_question_and_its_encoded_image(
    loaded: Load, scripted: Any, requests: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = scripted.scripted(loaded("llava"))
    asked: list[tuple[str, OperatingPoint | None]] = []

    def noted(model: Any, wanted: Any, **options: Any) -> Any:
        def each() -> Any:
            for request in wanted:
                assert all(isinstance(image, bytes) for image in request.images)
                asked.append((request.name, request.point))
                yield request

        return measure(model, each(), **options)

    monkeypatch.setattr(module, "measure", noted)
    measure_points(model, requests, [ALL, SMALL], DRAWN)
    assert asked[:4] == [
        ("q0", ALL),
        ("q0", SMALL),
        ("q1", ALL),
        ("q1", SMALL),
    ]


def test_without_a_way_to_measure_it_memory_is_not_measured(
    loaded: Load, scripted: Any, requests: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "reset_peak_memory", lambda: False)
    model, _ = scripted.scripted(loaded("llava"))
    record = measure_points(model, requests, [SMALL], DRAWN)
    assert record.points[0].peak_memory_bytes is None


def test_what_cannot_be_measured_is_refused_before_anything_is_asked(
    loaded: Load, scripted: Any, requests: list[Request]
) -> None:
    model, clock = scripted.scripted(loaded("llava"))
    large = OperatingPoint(resolution=99)
    for wrong, points, runs, words in (
        (requests, [ALL], LEAST_RUNS - 1, "runs is 19"),
        ([], [ALL], LEAST_RUNS, "requests is empty"),
        (requests, [], LEAST_RUNS, "different points"),
        (requests, [ALL, ALL], LEAST_RUNS, "different points"),
        (requests, [ALL, large], LEAST_RUNS, "'q0' cannot be asked at 99 px"),
    ):
        with pytest.raises(InputError, match=words):
            measure_points(model, wrong, points, DRAWN, runs=runs)
    missing = replace(requests[0], images=[Path("missing.png")])
    with pytest.raises(InputError, match=r"missing\.png"):
        measure_points(model, [missing], [ALL], DRAWN)
    assert clock.now == 0
