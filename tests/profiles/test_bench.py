"""The bench against a model whose timings are known."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from tightrope.errors import InputError
from tightrope.point import OperatingPoint
from tightrope.profiles.bench import altered, run_bench
from tightrope.profiles.bench_config import BenchConfig

IMAGE_TOKENS = 16


@dataclass
class ScriptedModel:
    """Prefill takes 1 ms a token, decoding 10 ms; every call is remembered."""

    calls: list[dict[str, Any]] = field(default_factory=list)

    def generate(self, prompt: Any, **options: Any) -> Any:
        self.calls.append({"prompt": prompt, **options})
        num_prompt = IMAGE_TOKENS if options.get("images") else len(prompt)
        steps = options["max_tokens"]
        return SimpleNamespace(
            usage=SimpleNamespace(
                prompt_tokens=num_prompt,
                completion_tokens=steps,
                visual_tokens=0,
                visual_tokens_kept=0,
            ),
            timings=SimpleNamespace(
                prefill_ms=float(num_prompt), decode_ms=10.0 * (steps - 1), ttft_ms=num_prompt + 0.5
            ),
        )


def bench(model: ScriptedModel, **choices: Any) -> Any:
    return run_bench(cast(Any, model), BenchConfig(**choices), vocab_size=1000)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    file = tmp_path / "picture.png"
    Image.new("RGB", (8, 6), (10, 20, 30)).save(file)
    return file


def test_rates_and_first_tokens_come_from_the_answers() -> None:
    rows = bench(ScriptedModel(), prompt_tokens=(64,), generate_tokens=5, repetitions=3)
    assert [row.test for row in rows] == ["pp64", "tg5"]
    reading, writing = (row.to_dict() for row in rows)
    assert reading["tokens_per_s_mean"] == pytest.approx(1000)
    assert reading["ttft_ms_mean"] == 64.5
    assert writing["tokens_per_s_mean"] == pytest.approx(100)
    assert len(writing["tokens_per_s"]) == 3


def test_one_run_of_each_test_is_not_measured_and_no_prompt_is_read_twice() -> None:
    model = ScriptedModel()
    bench(model, prompt_tokens=(32,), generate_tokens=0, repetitions=2)
    prompts = [tuple(call["prompt"]) for call in model.calls]
    assert len(prompts) == len(set(prompts)) == 3
    assert all(0 <= token < 1000 for prompt in prompts for token in prompt)
    assert all(call["ignore_eos"] for call in model.calls)


def test_every_repetition_sees_another_image(picture: Path) -> None:
    model = ScriptedModel()
    rows = bench(model, prompt_tokens=(), generate_tokens=0, repetitions=3, image=picture)
    assert [row.test for row in rows] == ["image"]
    images = {call["images"][0].tobytes() for call in model.calls}
    assert len(images) == 4


def test_points_that_select_visual_tokens_are_measured_with_the_image(picture: Path) -> None:
    points = (None, OperatingPoint(selector="visionzip", keep=4), OperatingPoint(kv_budget=128))
    rows = bench(
        ScriptedModel(), prompt_tokens=(8,), generate_tokens=2, image=picture, points=points
    )
    named = [(row.test, points.index(row.point)) for row in rows]
    assert named == [
        ("pp8", 0),
        ("tg2", 0),
        ("image", 0),
        ("image", 1),
        ("pp8", 2),
        ("tg2", 2),
        ("image", 2),
    ]


def test_an_altered_image_differs_in_one_pixel() -> None:
    image = np.zeros((4, 4, 3), dtype=np.uint8)
    other = altered(image, 7)
    assert np.count_nonzero((image != other).any(axis=2)) == 1


def test_progress_goes_run_by_run_through_the_tests() -> None:
    told: list[tuple[str, float]] = []
    config = BenchConfig(prompt_tokens=(8, 16), generate_tokens=0, repetitions=1)
    model: Any = ScriptedModel()
    run_bench(model, config, vocab_size=9, progress=lambda *said: told.append(said))
    assert told == [("pp8", 0.0), ("pp8", 0.25), ("pp16", 0.5), ("pp16", 0.75)]


def test_an_image_is_read_upright(tmp_path: Path) -> None:
    turned = Image.new("RGB", (8, 6), (10, 20, 30))
    turned.getexif()[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=turned.getexif())
    model = ScriptedModel()
    bench(model, prompt_tokens=(), generate_tokens=0, image=tmp_path / "turned.jpg")
    assert {call["images"][0].shape for call in model.calls} == {(8, 6, 3)}


@pytest.mark.parametrize(
    "wrong",
    [
        {"prompt_tokens": (0,)},
        {"generate_tokens": 1},
        {"repetitions": 0},
        {"repetitions": 1.5},
        {"prompt_tokens": (True,)},
        {"points": (OperatingPoint(selector="visionzip", keep=4),)},
        {"image": Path("no-such-file.png")},
    ],
)
def test_a_wrong_choice_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        bench(ScriptedModel(), **wrong)
