"""Scores of real bundles, and the arithmetic behind them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tightrope.bundle import MANIFEST
from tightrope.errors import InputError
from tightrope.point import OperatingPoint
from tightrope.profiles.task.report import Report
from tightrope.profiles.task.score import rightness, score_task
from tightrope.profiles.task.score_config import ScoreConfig
from tightrope.profiles.task.tally import Tally
from tightrope.profiles.task.task import Item, Task, read_task, write_task
from tightrope.profiles.task.vqa import vqa_accuracy, written_alike
from tightrope.runtime.model import Model, load

Find = Callable[[str], Path]
Load = Callable[[str], Model]
Paint = Callable[..., Path]
SCENES = Path(__file__).parents[2] / "data" / "scenes"
LENGTH = 6
COLOURS = ("red", "green", "blue")
THOUGHTFUL = (
    "{% for m in messages %}{{ '<user>' if m['role'] == 'user' else '<assistant>' }}"
    "{{ m['content'] }}{% endfor %}<assistant>"
    "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}"
)


def item(*answers: str, type: str = "other", **info: Any) -> Item:
    asked = ({"role": "user", "content": "what ?"},)
    return Item(id="a", images=(), messages=asked, answers=answers, type=type, info=info)


def score(model: Model, task: Task, **choices: Any) -> Report:
    return score_task(model, task, ScoreConfig(max_tokens=LENGTH, **choices))


@pytest.fixture
def model(loaded: Load) -> Model:
    """The small model that sees, with no image in its memory."""
    real = loaded("llava")
    return Model(real.bundle, real.backend)


@pytest.fixture
def task(tmp_path: Path, paint: Paint, model: Model) -> Task:
    """Two questions about each of three pictures, in turn; the model answers half of them rightly.

    A seventh, about text alone, has no reference.
    """
    lines = []
    for number in range(6):
        colour = COLOURS[number % 3]
        file = paint(tmp_path / "images" / f"{colour}.png", colour)
        question = f"what is {number} ?"
        said = model.generate(question, [file], max_tokens=LENGTH).text
        lines.append(
            {
                "id": str(number),
                "images": [f"images/{colour}.png"],
                "question": question,
                "answer": ["no", f"  {said.upper()} "] if number % 2 else "no",
                "type": "odd" if number % 2 else "even",
                "info": {"half": number // 3} if number else {},
            }
        )
    lines.append({"id": "6", "question": "and now ?"})
    write_task(tmp_path, lines)
    return read_task(tmp_path)


def test_right_answers_are_counted_by_type_and_by_field(model: Model, task: Task) -> None:
    report = score(model, task, by=("half",))
    assert report.overall == Tally(n=6, right=3.0)
    assert report.types == {
        "even": Tally(n=3, right=0.0),
        "odd": Tally(n=3, right=3.0),
        "other": Tally(n=0, right=0.0),
    }
    assert report.by == {"half": {"0": Tally(n=2, right=1.0), "1": Tally(n=3, right=2.0)}}
    assert report.without_reference == 1


def test_records_keep_the_order_of_the_task(model: Model, task: Task) -> None:
    report = score(model, task)
    assert [record.id for record in report.records] == list("0123456")
    assert [record.right for record in report.records] == [0, 1, 0, 1, 0, 1, None]
    for record, asked in zip(report.records, task.items, strict=True):
        messages: Any = asked.messages
        assert record.text == model.generate(messages, asked.images, max_tokens=LENGTH).text


def test_what_was_spent_is_told(model: Model, task: Task) -> None:
    point = OperatingPoint(selector="visionzip", keep=4, resolution=56)
    report = score(model, task, point=point)
    assert report.visual_tokens_kept == pytest.approx(4 * 6 / 7)
    ids: list[Any] = [model.token_ids(asked.messages, len(asked.images)) for asked in task.items]
    assert report.prompt_tokens == pytest.approx((sum(map(len, ids)) + 15 * 6) / 7)
    assert 1 <= report.completion_tokens <= LENGTH
    assert sum(report.finish_reasons.values()) == pytest.approx(1)
    assert set(report.finish_reasons) <= {"stop", "length"}
    assert (report.point.selector, report.point.keep) == ("visionzip", 4)
    assert report.backend == "onnxruntime"
    assert report.wall_s > 0


def test_a_report_is_json_with_records_where_they_are_wanted(model: Model, task: Task) -> None:
    report = score(model, task, by=("half",))
    told = json.loads(json.dumps(report.to_dict(records=True), allow_nan=False))
    assert told["schema"] == 1
    low, high = told["overall"].pop("interval")
    assert told["overall"] == {"n": 6, "right": 3.0, "accuracy": 0.5}
    assert 0 < low < 0.5 < high < 1
    assert told["types"]["other"] == {"n": 0, "right": 0.0, "accuracy": None, "interval": None}
    assert told["by"]["half"]["1"]["n"] == 3
    assert told["records"][1] == {"id": "1", "text": report.records[1].text, "right": 1.0}
    assert "records" not in report.to_dict()


def test_an_image_goes_through_the_tower_once_though_only_one_is_remembered(
    model: Model, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh, real, calls = Model(model.bundle, model.backend), model.backend.vision, []

    def counted(*arguments: Any) -> Any:
        tokens = real(*arguments)
        assert fresh._loaded.vision is not None
        monkeypatch.setattr(fresh._loaded.vision.kept, "most_bytes", tokens.nbytes)
        calls.append(arguments)
        return tokens

    monkeypatch.setattr(model.backend, "vision", counted)
    score(fresh, task)
    assert len(calls) == len(COLOURS)


def test_progress_goes_up_to_the_last_question(model: Model, task: Task) -> None:
    told: list[tuple[str, float]] = []
    config = ScoreConfig(max_tokens=1)
    score_task(model, task, config, lambda name, done: told.append((name, done)))
    assert [done for _, done in told] == pytest.approx([place / 7 for place in range(7)])
    # The text alone, then picture by picture: blue, green, red.
    assert [name for name, _ in told] == ["6", "2", "5", "1", "4", "0", "3"]


def test_types_are_chosen_before_the_first_few(model: Model, task: Task) -> None:
    report = score(model, task, types=("odd",), limit=2)
    assert [record.id for record in report.records] == ["1", "3"]


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"types": ("evne",)}, "no type 'evne', 'even' was probably meant; accepted: even, odd"),
        ({"by": ("level",)}, "no field of info 'level'; accepted: half"),
        ({"limit": 1, "by": ("half",)}, "no field of info 'half'; accepted: none"),
        ({"limit": 0}, "limit is 0"),
        ({"thinking": False}, "request '0' cannot be asked: thinking is False, .* enable_thinking"),
        ({"point": OperatingPoint(resolution=57)}, "request '6' cannot be asked: resolution is 57"),
    ],
)
def test_a_wrong_choice_is_refused(
    model: Model, task: Task, choices: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        score(model, task, **choices)


def test_a_picture_that_is_cut_short_is_named_with_its_question(
    model: Model, tmp_path: Path
) -> None:
    whole = tmp_path / "whole.jpg"
    Image.effect_noise((90, 90), 80).save(whole)
    (tmp_path / "cut.jpg").write_bytes(whole.read_bytes()[:-900])
    write_task(tmp_path, [{"id": "x", "images": ["cut.jpg"], "question": "what ?"}])
    with pytest.raises(InputError, match=r"request 'x' cannot be asked: image .*cut\.jpg"):
        score(model, read_task(tmp_path))


@pytest.fixture
def thoughtful(bundle: Find, tmp_path: Path) -> Model:
    """The small text model with a template that opens an empty thought where it is told to."""
    folder = tmp_path / "thoughtful.bundle"
    shutil.copytree(bundle("llama"), folder, copy_function=os.link)
    content = THOUGHTFUL.encode()
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    entry = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest["files"]["chat_template.jinja"] = entry
    for name, text in (("chat_template.jinja", content), (MANIFEST, json.dumps(manifest).encode())):
        (folder / name).unlink()
        (folder / name).write_bytes(text)
    return load(folder, "onnxruntime", 1)


def test_the_template_is_told_whether_to_think(thoughtful: Model, tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": "one ?"},
        {"role": "assistant", "content": "one"},
        {"role": "user", "content": "two ?"},
    ]
    free = thoughtful.token_ids(turns)
    thought = thoughtful.token_ids("<think></think>")[1:-1]
    assert thoughtful.token_ids(turns, thinking=True) == free
    assert thoughtful.token_ids(turns, thinking=False) == free + thought
    write_task(tmp_path, [{"id": "x", "messages": turns}])
    task = read_task(tmp_path)
    for thinking, ids in ((None, free), (True, free), (False, free + thought)):
        (record,) = score(thoughtful, task, thinking=thinking).records
        assert record.text == thoughtful.generate(ids, max_tokens=LENGTH).text


def test_a_template_without_thoughts_refuses_the_choice(model: Model) -> None:
    with pytest.raises(InputError, match="thinking is True, but this bundle's chat template"):
        model.token_ids("what ?", thinking=True)


@pytest.mark.parametrize(
    ("asked", "text", "expected"),
    [
        (item("top left"), "Top\n LEFT ", 1.0),
        (item("two", "2"), "2", 1.0),
        (item("two"), "two.", 0.0),
        (item("red"), "<think> red", 0.0),
        (item(""), "<think> red", 0.0),
        (item("red"), "<think> blue </think> red", 1.0),
        (item(*["red"] * 3, *["blue"] * 7, scoring="vqa"), "Red.", 0.9),
        (item("red", scoring="exact"), "red", 1.0),
        (item(), "red", None),
    ],
)
def test_rightness(asked: Item, text: str, expected: float | None) -> None:
    assert rightness(asked, text) == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("matches", "accuracy"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)]
)
def test_vqa_accuracy_is_the_published_mean_over_nine_of_ten(matches: int, accuracy: float) -> None:
    answers = ["red"] * matches + ["blue"] * (10 - matches)
    assert vqa_accuracy("red", answers) == pytest.approx(accuracy)


@pytest.mark.parametrize(
    ("text", "alike"),
    [
        ("The  Dog", "dog"),
        ("two cats", "2 cats"),
        ("None", "0"),
        ("Don't", "dont"),
        ("red.", "red"),
        ("3.5", "3.5"),
        ("1,000", "1000"),
        ("black/white", "black white"),
        ("black, white", "black white"),
        ("yes!", "yes"),
    ],
)
def test_texts_are_written_alike_as_the_benchmark_does(text: str, alike: str) -> None:
    assert written_alike(text) == alike


@pytest.mark.slow
@pytest.mark.parametrize("point", [None, OperatingPoint(selector="visionzip", keep="50%")])
def test_the_reference_model_scores_well_on_its_scenes(
    loaded: Load, point: OperatingPoint | None
) -> None:
    types = ("colour", "shape", "position", "relation")
    report = score(loaded("reference"), read_task(SCENES), point=point, types=types, limit=20)
    assert report.overall.right >= 18
    assert report.finish_reasons == {"stop": 1.0}
    assert report.visual_tokens_kept == (576 if point is None else 288)
