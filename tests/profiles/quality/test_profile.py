"""Quality measured of real bundles: what is asked, what is kept, and where it goes on."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tightrope.errors import InputError, ProfileError
from tightrope.point import OperatingPoint
from tightrope.profiles.quality import ask as ask_module
from tightrope.profiles.quality import profile as profile_module
from tightrope.profiles.quality.config import QualityConfig
from tightrope.profiles.quality.profile import profile_quality
from tightrope.profiles.quality.report import Profiled
from tightrope.profiles.task.task import Task, read_task, task_digest, write_task
from tightrope.quality_file import find_quality
from tightrope.runtime.agreement import same_answer, token_agreement
from tightrope.runtime.model import Model

Find = Callable[[str], Path]
Load = Callable[[str], Model]
COLOURS = ("red", "green", "blue")
LENGTH, QUESTIONS, POINTS = 5, 12, 9
UNPRUNED = OperatingPoint(resolution=84)
SCENES = Path(__file__).parents[2] / "data" / "scenes"


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder of the test's own: bundles are shared."""
    folder = tmp_path / "state"
    monkeypatch.setenv("TIGHTROPE_STATE", str(folder))
    return folder


@pytest.fixture
def model(loaded: Load) -> Model:
    real = loaded("llava")
    return Model(real.bundle, real.backend)


def make_task(folder: Path, answer: Any = "no", questions: int = QUESTIONS) -> Task:
    """Questions about three pictures in turn, every fifth about none."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(questions):
        colour = COLOURS[number % 3]
        Image.new("RGB", (20, 16), colour).save(folder / "images" / f"{colour}.png")
        line: dict[str, Any] = {"id": f"q{number}", "question": f"what is {number} ?"}
        if number % 5:
            line["images"] = [f"images/{colour}.png"]
        if answer is not None:
            line["answer"] = answer
        lines.append(line)
    write_task(folder, lines)
    return read_task(folder)


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return make_task(tmp_path / "colours")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[OperatingPoint, str]]:
    """What models are asked from now on: points and questions."""
    found: list[tuple[OperatingPoint, str]] = []
    from tightrope.profiles.measure import measure as real

    def noted(model: Model, requests: Any, **options: Any) -> Any:
        for request in requests:
            found.append((request.point, request.name))
        return real(model, requests, **options)

    monkeypatch.setattr(ask_module, "measure", noted)
    return found


def profiled(model: Model, task: Task, **choices: Any) -> Profiled:
    settings = {"points": POINTS, "max_tokens": LENGTH} | choices
    minutes: dict[str, Any] = {"clock": settings.pop("clock")} if "clock" in settings else {}
    return profile_quality(model, task, QualityConfig(**settings), **minutes)


def outcomes(report: Profiled) -> dict[tuple[OperatingPoint, str], Any]:
    return {
        (point.point, outcome.question): outcome
        for point in report.quality.points
        for outcome in point.outcomes
    }


def test_every_point_is_asked_every_question_once(
    model: Model, task: Task, asked: list[Any]
) -> None:
    report = profiled(model, task)
    known = outcomes(report)
    assert len({point for point, _ in known}) == POINTS
    assert len(known) == POINTS * QUESTIONS
    assert max(Counter(asked).values()) == 1
    assert (report.complete, report.racing, report.questions) == (True, POINTS, QUESTIONS)
    assert report.asked == len(asked)
    # Of the text alone all points say the same: each is asked once.
    blind = [name for _, name in asked if int(name[1:]) % 5 == 0]
    assert sorted(blind) == ["q0", "q10", "q5"]
    assert len(asked) == len(known) - 3 * (POINTS - 1)
    assert report.quality == replace(
        report.quality,
        key=find_quality(model.bundle, "colours").key,  # type: ignore[union-attr]
    )


def test_outcomes_are_what_the_model_says(model: Model, task: Task) -> None:
    said = model.generate("what is 1 ?", task.items[1].images, max_tokens=LENGTH, point=UNPRUNED)
    lines = make_task(task.folder, answer=["no", said.text])
    known = outcomes(profiled(model, lines))
    items = {item.id: item for item in task.items}
    right = 0.0
    for (point, name), outcome in known.items():
        item = items[name]
        messages: Any = item.messages
        answer = model.generate(messages, item.images, max_tokens=LENGTH, point=point)
        assert outcome.text == answer.text
        assert outcome.completion_tokens == answer.usage.completion_tokens
        assert outcome.finish_reason == answer.finish_reason
        assert outcome.score == (answer.text.strip() == said.text.strip())
        full = model.generate(messages, item.images, max_tokens=LENGTH, point=UNPRUNED)
        same = [a == b for a, b in zip(answer.token_ids, full.token_ids, strict=False)]
        assert outcome.token_agreement == sum(same) / len(full.token_ids)
        right += outcome.score
    assert right > 0


def test_without_answers_agreement_with_everything_is_measured(
    model: Model, tmp_path: Path
) -> None:
    report = profiled(model, make_task(tmp_path / "colours", answer=None))
    assert report.quality.key.measure == "agreement"
    known = outcomes(report)
    for (point, name), outcome in known.items():
        everything = known[UNPRUNED, name]
        assert outcome.score == (outcome.text == everything.text)
        assert 0 <= (outcome.token_agreement or 0.0) <= 1
        if point == UNPRUNED:
            assert (outcome.score, outcome.token_agreement) == (1, 1)
    assert any(outcome.score == 0 for outcome in known.values())
    assert UNPRUNED not in [point.point for point in report.quality.points if point.beaten_by]


def test_questions_without_an_answer_are_left_out_where_others_have_one(
    model: Model, tmp_path: Path
) -> None:
    lines: list[dict[str, Any]] = [{"id": str(i), "question": f"{i} ?"} for i in range(4)]
    lines[2]["answer"] = "x"
    write_task(tmp_path / "few", lines)
    report = profiled(model, read_task(tmp_path / "few"))
    assert (report.questions, report.without_reference) == (1, 3)
    assert {name for _, name in outcomes(report)} == {"2"}


def test_what_is_implied_is_what_would_have_been_said(
    model: Model, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = outcomes(profiled(model, task))
    for module in (ask_module, profile_module):
        monkeypatch.setattr(module, "implied", lambda *arguments: None)
    assert outcomes(profiled(model, task, name="again")) == known


def test_time_that_is_over_ends_it_and_it_goes_on(
    model: Model, task: Task, asked: list[Any]
) -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 1.0
        return now[0]

    part = profiled(model, task, minutes=0.5, clock=clock)
    assert not part.complete and 20 <= len(asked) <= 30
    assert part.asked == len(asked)
    known = outcomes(part)
    rest = profiled(model, task)
    assert rest.complete and len(outcomes(rest)) == POINTS * QUESTIONS
    assert max(Counter(asked).values()) == 1
    assert {key: outcomes(rest)[key] for key in known} == known


def test_a_race_in_two_goes_is_the_race_in_one(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tightrope.profiles.quality.race.FIRST_ROUND", 4)
    monkeypatch.setattr("tightrope.profiles.quality.race.ERROR", 100.0)  # they leave lightly
    task = make_task(tmp_path / "colours")
    cheap = OperatingPoint(resolution=28)  # says what is right, so those that cost more leave
    messages: list[Any] = [item.messages for item in task.items]
    answers = [
        model.generate(asked, item.images, max_tokens=LENGTH, point=cheap).text
        for asked, item in zip(messages, task.items, strict=True)
    ]
    told = zip(task.items, answers, strict=True)
    task = replace(task, items=tuple(replace(item, answers=(text,)) for item, text in told))
    whole = profiled(model, task, name="whole")
    assert whole.racing < POINTS
    assert UNPRUNED in [point.point for point in whole.quality.points if point.beaten_by]
    profiled(model, task, limit=5, name="parts")
    parts = profiled(model, task, name="parts")
    assert {point.point: point.beaten_by for point in parts.quality.points} == {
        point.point: point.beaten_by for point in whole.quality.points
    }
    # Shuffled by the hash of the id: who left had been asked a beginning of that order.
    fewest = min(len(point.outcomes) for point in whole.quality.points)
    assert fewest < QUESTIONS
    for point in whole.quality.points:
        assert point.beaten_by is not None or len(point.outcomes) == QUESTIONS


def test_more_points_join_later_and_catch_up(model: Model, task: Task, asked: list[Any]) -> None:
    profiled(model, task, points=3, limit=6)
    report = profiled(model, task, points=5)
    assert len(outcomes(report)) == 5 * QUESTIONS
    assert max(Counter(asked).values()) == 1


def test_progress_never_goes_back_and_says_how_long(model: Model, task: Task) -> None:
    told: list[tuple[str, float]] = []
    config = QualityConfig(points=POINTS, max_tokens=LENGTH)
    profile_quality(model, task, config, progress=lambda what, share: told.append((what, share)))
    shares = [share for _, share in told]
    assert shares == sorted(shares) and shares[0] >= 0 and shares[-1] <= 1
    assert shares[-1] > 0.9
    assert "9 points race, at most" in told[-1][0]


RUN = """
import sys
from pathlib import Path
import tightrope
from tightrope.profiles.quality.config import QualityConfig
from tightrope.profiles.quality.profile import profile_quality
from tightrope.profiles.task.task import read_task
from tightrope.state import held

model = tightrope.load(sys.argv[1], "onnxruntime", 1)
with held(Path(sys.argv[1])):
    profile_quality(model, read_task(Path(sys.argv[2])), QualityConfig(points=9, max_tokens=5))
"""


def rows(file: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(file)) as database:
        query = "SELECT p.point, question FROM outcomes o JOIN points p ON o.point = p.id"
        return database.execute(query).fetchall()


def test_a_profile_that_was_killed_goes_on_without_asking_twice(
    model: Model, bundle: Find, state: Path, tmp_path: Path, asked: list[Any]
) -> None:
    task = make_task(tmp_path / "many", questions=80)
    process = subprocess.Popen([sys.executable, "-c", RUN, str(bundle("llava")), str(task.folder)])
    folder, enough = state / "quality", 60
    known: list[tuple[str, str]] = []
    ends = time.monotonic() + 120
    while len(known) < enough:
        assert process.poll() is None and time.monotonic() < ends
        with suppress(sqlite3.Error, StopIteration):
            known = rows(next(folder.glob("*.sqlite")))
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    (file,) = folder.glob("*.sqlite")
    known = rows(file)
    assert enough <= len(known) < 80 * 9
    report = profiled(model, task)
    assert report.complete and report.quality.key.task_name == "many"
    again = {(json.dumps(_plain(point), sort_keys=True), name) for point, name in asked}
    assert not again & set(known)
    assert max(Counter(asked).values()) == 1
    assert len(outcomes(report)) == len(rows(file))
    unbeaten = [point for point in report.quality.points if point.beaten_by is None]
    assert all(len(point.outcomes) == 80 for point in unbeaten)


def _plain(point: OperatingPoint) -> dict[str, Any]:
    values = {name: getattr(point, name) for name in OperatingPoint.__dataclass_fields__}
    return {name: value for name, value in values.items() if value is not None}


def test_what_cannot_be_asked_is_said_before_anything_is(
    model: Model, tmp_path: Path, asked: list[Any]
) -> None:
    write_task(tmp_path / "t", [{"id": "x", "question": "?"}, {"id": "y", "question": "a" * 5000}])
    task = read_task(tmp_path / "t")
    with pytest.raises(InputError, match="question 'y' cannot be asked"):
        profiled(model, task)
    with pytest.raises(InputError, match="kv_budget is 99999"):
        profiled(model, task, kv_budgets=(99999,))
    assert asked == []


def test_a_picture_that_is_cut_short_is_named_with_its_question(
    model: Model, tmp_path: Path
) -> None:
    whole = tmp_path / "whole.jpg"
    Image.effect_noise((90, 90), 80).save(whole)
    (tmp_path / "cut.jpg").write_bytes(whole.read_bytes()[:-900])
    write_task(tmp_path, [{"id": "x", "images": ["cut.jpg"], "question": "what ?"}])
    with pytest.raises(InputError, match=r"question 'x' cannot be asked: image .*cut\.jpg"):
        profiled(model, read_task(tmp_path))


def test_a_task_that_was_changed_is_refused_under_its_old_name(
    model: Model, task: Task, tmp_path: Path
) -> None:
    profiled(model, task, points=1)
    changed = make_task(task.folder, answer="yes")
    with pytest.raises(ProfileError, match=r"was measured with task .*another --name"):
        profiled(model, changed, points=1)
    report = profiled(model, changed, points=1, name="changed")
    assert report.file.name.startswith("changed-")


def test_a_digest_is_of_questions_answers_and_pixels_alone(tmp_path: Path) -> None:
    first = make_task(tmp_path / "a")
    digest = task_digest(first)
    assert digest == task_digest(make_task(tmp_path / "b"))
    assert digest == task_digest(replace(first, items=first.items[::-1]))
    assert digest != task_digest(make_task(tmp_path / "c", answer="yes"))
    assert digest != task_digest(replace(first, items=first.items[1:]))
    Image.new("RGB", (20, 16), "black").save(tmp_path / "b" / "images" / "red.png")
    assert digest != task_digest(read_task(tmp_path / "b"))
    (tmp_path / "b" / "images" / "red.png").unlink()
    with pytest.raises(InputError, match=r"red\.png.* cannot be read"):
        task_digest(replace(first, items=read_later(first, tmp_path / "b")))


def read_later(task: Task, folder: Path) -> tuple[Any, ...]:
    """The items as if they lay in `folder`, nothing checked."""
    return tuple(
        replace(item, images=tuple(folder / "images" / image.name for image in item.images))
        for item in task.items
    )


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"points": 0}, "points is 0"),
        ({"minutes": 0.0}, "minutes is 0"),
        ({"minutes": float("nan")}, "minutes is nan"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"limit": 0}, "limit is 0"),
        ({"name": " "}, "name is empty"),
    ],
)
def test_a_wrong_choice_is_refused(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        QualityConfig(**choices)


@pytest.mark.parametrize(
    ("ids", "unpruned", "share"),
    [([1, 2, 3], [1, 2, 3], 1), ([1, 3], [1, 2, 3, 4], 0.25), ([9, 1], [1], 0), ([1, 5], [1], 1)],
)
def test_token_agreement(ids: list[int], unpruned: list[int], share: float) -> None:
    assert token_agreement(ids, unpruned) == share


def test_answers_are_compared_behind_their_thoughts() -> None:
    assert same_answer("<think> a </think> 2", "<think> b </think> 2") == 1
    assert same_answer("<think> a </think> 2", "3") == 0
    assert same_answer("<think> a", "<think> b") == 0
    assert same_answer("<think> a", "<think> a") == 1


@pytest.mark.slow
def test_thoughts_are_capped_in_the_race_and_caps_that_never_act_are_implied(
    loaded: Load, asked: list[Any]
) -> None:
    model, scenes = loaded("reference"), read_task(SCENES)
    counts = [item for item in scenes.items if item.type == "count"][:3]
    colours = [item for item in scenes.items if item.type == "colour"][:3]
    task = replace(scenes, items=(*counts, *colours))
    known = outcomes(profiled(model, task, points=11, max_tokens=64))
    capped = {key: found for key, found in known.items() if key[0].thinking_tokens}
    assert capped and any(point.thinking_tokens == 0 for point, _ in known)
    followed = set(capped) - set(asked)
    assert followed and followed != set(capped)
    items = {item.id: item for item in task.items}
    for (point, name), outcome in capped.items():
        assert outcome.thinking_tokens <= (point.thinking_tokens or 0)
        messages: Any = items[name].messages
        answer = model.generate(messages, items[name].images, max_tokens=64, point=point)
        assert (answer.text, answer.usage.completion_tokens) == (
            outcome.text,
            outcome.completion_tokens,
        )
