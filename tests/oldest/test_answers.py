"""The reference bundle answers with the oldest packages, without what made it."""

import json
import os
from pathlib import Path

import pytest

import tightrope as tr

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
    lines = (SCENES / "task.jsonl").read_text(encoding="utf-8").splitlines()
    tasks = [json.loads(line) for line in lines[:9]]
    right = 0
    for task in tasks:
        images = [SCENES / image for image in task["images"]]
        answer = model.generate(task["question"], images=images, max_tokens=8, point=POINTS[name])
        right += answer.text == task["answer"]
    assert right >= len(tasks) - 2


def test_a_conversation_keeps_its_slots(model: tr.Model) -> None:
    chat = model.chat()
    first = chat.ask("what colour is the triangle ?", images=[SCENES / "images/000.png"])
    second = chat.ask("how many circles are there ?")
    assert first.text == "white"
    assert second.usage.cached_tokens >= first.usage.prompt_tokens
    assert not second.notes
