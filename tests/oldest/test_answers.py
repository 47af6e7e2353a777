"""The reference bundle answers with the oldest packages, without what made it."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

import tightrope as tr
from tightrope.profiles.task.score import score_task
from tightrope.profiles.task.score_config import ScoreConfig
from tightrope.profiles.task.task import read_task
from tightrope.runtime.selftest.check import check

SCENES = Path(__file__).parents[1] / "data" / "scenes"
POINTS = {
    "everything": None,
    "flashvlm": tr.OperatingPoint(selector="flashvlm", keep="25%"),
    "visionzip": tr.OperatingPoint(selector="visionzip", keep="25%"),
    "divprune": tr.OperatingPoint(selector="divprune", keep="25%"),
    "random": tr.OperatingPoint(selector="random", keep="50%"),
    "budget": tr.OperatingPoint(kv_budget=64),
}


@pytest.fixture(scope="module")
def model() -> tr.Model:
    bundle = os.environ.get("TIGHTROPE_TEST_BUNDLE")
    if bundle is None:
        pytest.skip("TIGHTROPE_TEST_BUNDLE names no bundle; `make test-oldest` exports one")
    return tr.load(bundle)


@pytest.mark.parametrize("name", POINTS)
def test_questions_about_images_are_answered(name: str, model: tr.Model) -> None:
    task = read_task(SCENES)
    easy = [item for item in task.items if item.info.get("level") == "easy" and item.type != "list"]
    report = score_task(
        model, replace(task, items=tuple(easy[:20])), ScoreConfig(point=POINTS[name])
    )
    assert report.overall.n == 20
    assert report.overall.right >= (18 if name == "everything" else 12)


def test_a_conversation_keeps_its_slots(model: tr.Model) -> None:
    chat = model.chat()
    first = chat.ask("what colour is the star ?", images=[SCENES / "images/00001.png"])
    second = chat.ask("where is it ?")
    assert first.text == "red"
    assert second.usage.cached_tokens >= first.usage.prompt_tokens
    assert not second.notes


def test_every_graph_answers_as_where_it_was_exported(model: tr.Model) -> None:
    found = list(check(model.bundle, model.backend))
    assert [finding.detail for finding in found if not finding.passed] == []
    assert len(found) >= 7
