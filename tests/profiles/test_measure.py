"""The loop that asks, against a model that remembers what it was asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tightrope.errors import InputError
from tightrope.point import OperatingPoint
from tightrope.profiles.measure import Request, encoded, measure
from tightrope.runtime.images import load_image


@dataclass
class ScriptedModel:
    """Answers with the prompt; refuses the prompt "no"."""

    calls: list[dict[str, Any]] = field(default_factory=list)

    def generate(self, prompt: Any, **options: Any) -> Any:
        if prompt == "no":
            raise InputError("prompt is 'no'; accepted: another")
        self.calls.append({"prompt": prompt, **options})
        return f"answer to {prompt}"

    def token_ids(
        self, prompt: Any, num_images: int, thinking: bool | None, point: Any, frames: Any
    ) -> Any:
        if prompt == "no":
            raise InputError("prompt is 'no'; accepted: another")
        return [len(prompt), num_images, thinking]


def request(prompt: Any, *images: Any, name: str | None = None, **choices: Any) -> Request:
    return Request(name=name or prompt, prompt=prompt, images=images, max_tokens=4, **choices)


def asked(model: Any, *requests: Request) -> Any:
    return measure(model, requests, total=len(requests))


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    files = [tmp_path / f"{colour}.png" for colour in ("red", "green")]
    for file in files:
        Image.new("RGB", (8, 6), file.stem).save(file)
    return files


def test_requests_are_asked_in_order_each_as_it_says() -> None:
    model = ScriptedModel()
    point = OperatingPoint(kv_budget=64)
    answers = asked(
        model, request("a", seed=3, point=point), request([5, 6], name="ids", ignore_eos=True)
    )
    assert answers == ["answer to a", "answer to [5, 6]"]
    usual = {"images": [], "frames": [], "max_tokens": 4, "seed": 0, "thinking": None}
    usual |= {"point": None, "ignore_eos": False}
    assert model.calls == [
        {"prompt": "a", **usual, "seed": 3, "point": point},
        {"prompt": [5, 6], **usual, "ignore_eos": True},
    ]


def test_a_request_is_taken_when_the_one_before_has_been_answered() -> None:
    model = ScriptedModel()
    answered = []

    def requests() -> Iterator[Request]:
        for name in "abc":
            answered.append(len(model.calls))
            yield request(name)

    scripted: Any = model
    measure(scripted, requests(), total=3)
    assert answered == [0, 1, 2]


def test_an_image_file_is_opened_once_for_requests_that_follow_each_other(
    pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    red, green = pictures
    opened: list[Path] = []

    def counted(source: Any) -> Any:
        opened.append(source)
        return load_image(source)

    monkeypatch.setattr("tightrope.profiles.measure.load_image", counted)
    model = ScriptedModel()
    asked(
        model, *(request("?", *images) for images in ([red], [red], [red, green], [green], [red]))
    )
    assert opened == [red, green, red]
    seen = [[image.getpixel((0, 0)) for image in call["images"]] for call in model.calls]
    one, other = (255, 0, 0), (0, 128, 0)
    assert seen == [[one], [one], [one, other], [other], [one]]


def test_an_image_that_is_no_file_is_handed_on_as_it_is() -> None:
    model, array = ScriptedModel(), np.zeros((4, 4, 3), np.uint8)
    asked(model, request("?", array))
    assert model.calls[0]["images"][0] is array


def test_whether_to_think_is_told_to_the_chat_template() -> None:
    model = ScriptedModel()
    asked(model, request("why ?", thinking=False), request("why ?"))
    assert [call["thinking"] for call in model.calls] == [False, None]


def test_a_request_can_be_encoded_before_any_is_asked(pictures: list[Path]) -> None:
    model: Any = ScriptedModel()
    ready = encoded(model, request("why ?", *pictures, thinking=True, seed=7))
    assert (ready.prompt, ready.thinking, ready.seed) == ([5, 2, True], None, 7)
    with pytest.raises(InputError, match="request 'no' cannot be asked: prompt is 'no'"):
        encoded(model, request("no"))


def test_the_request_that_cannot_be_asked_is_named(tmp_path: Path) -> None:
    model = ScriptedModel()
    with pytest.raises(InputError, match="request 'second' cannot be asked: prompt is 'no'"):
        asked(model, request("a"), request("no", name="second"), request("b"))
    assert [call["prompt"] for call in model.calls] == ["a"]
    missing = tmp_path / "missing.png"
    with pytest.raises(InputError, match=r"request 'seen' cannot be asked: image .*missing\.png"):
        asked(model, request("a", missing, name="seen"))


def test_progress_names_each_request_before_it_is_asked() -> None:
    told: list[tuple[str, float, int]] = []
    model = ScriptedModel()
    scripted: Any = model
    measure(
        scripted,
        [request(name) for name in "abcd"],
        total=4,
        progress=lambda name, share: told.append((name, share, len(model.calls))),
    )
    assert told == [("a", 0.0, 0), ("b", 0.25, 1), ("c", 0.5, 2), ("d", 0.75, 3)]
