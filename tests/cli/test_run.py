"""`run` against a model whose answers are known: what goes in, and what is printed where."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

import tightrope
from tightrope.cli import app
from tightrope.point import OperatingPoint

POINT = {"selector": None, "keep": None}


def answer(text: str, samples: tuple[Any, ...] | None = None) -> Any:
    told = {
        "text": text,
        "point": POINT,
        "usage": {"prompt_tokens": 7},
        "timings": {"ttft_ms": 12.34},
    }
    return SimpleNamespace(
        text=text,
        samples=samples,
        backend="null",
        finish_reason="stop",
        stop=SimpleNamespace(text="</s>", token_id=2),
        plan=None,
        deadline_met=None,
        to_dict=lambda: told,
    )


@dataclass
class ScriptedModel:
    """Answers "a cup" in two pieces, whatever it is asked."""

    asked: list[tuple[Any, dict[str, Any]]] = field(default_factory=list)
    system: str | None = None

    def stream(self, prompt: Any, **options: Any) -> Iterator[Any]:
        self.asked.append((prompt, options))
        yield SimpleNamespace(text="a ", answer=None)
        yield SimpleNamespace(text="cup", answer=answer("a cup"))

    def generate(self, prompt: Any, **options: Any) -> Any:
        self.asked.append((prompt, options))
        samples = (answer("a cup"), answer("a mug"))
        return answer("a cup", samples if options["n"] > 1 else None)

    def chat(self, system: str | None = None) -> ScriptedModel:
        self.system = system
        return self


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> ScriptedModel:
    scripted = ScriptedModel()
    monkeypatch.setitem(vars(tightrope), "load", lambda path, **options: scripted)
    return scripted


def run(*arguments: str, stdin: str = "") -> Any:
    return CliRunner().invoke(app, ["run", "x.bundle", *arguments], input=stdin)


def test_an_answer_is_printed_as_it_streams(model: ScriptedModel) -> None:
    result = run("What is it?", "--image", "frame.jpg", "--max-tokens", "8", "--stop", ".")
    assert (result.exit_code, result.stdout) == (0, "a cup\n")
    prompt, options = model.asked[0]
    assert prompt == "What is it?"
    assert options["images"] == ["frame.jpg"]
    assert (options["max_tokens"], options["stop"], options["point"]) == (8, ["."], None)


def test_options_of_the_point_reach_the_model(model: ScriptedModel) -> None:
    run("q", "--selector", "visionzip", "--keep", "25%", "--policy", "h2o", "--kv-budget", "128")
    expected = OperatingPoint(selector="visionzip", keep="25%", policy="h2o", kv_budget=128)
    assert model.asked[0][1]["point"] == expected


def test_the_question_may_come_from_standard_input(model: ScriptedModel) -> None:
    run(stdin="What is it?\n")
    assert model.asked[0][0] == "What is it?"


def test_a_system_text_makes_it_a_list_of_messages(model: ScriptedModel) -> None:
    run("q", "--system", "Be brief.")
    assert model.asked[0][0] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "q"},
    ]


def test_json_prints_the_answer_as_one_object(model: ScriptedModel) -> None:
    assert json.loads(run("q", "--json").stdout)["text"] == "a cup"


def test_several_samples_are_told_apart(model: ScriptedModel) -> None:
    assert run("q", "--n", "2").stdout == "a cup\n---\na mug\n"


def test_explain_leaves_the_answer_alone_on_standard_output(model: ScriptedModel) -> None:
    result = run("q", "--explain")
    assert result.stdout == "a cup\n"
    assert "ttft_ms" in result.stderr
    assert "'</s>' (token 2)" in result.stderr
    assert "12.3" in result.stderr


def test_a_chat_asks_line_by_line_and_hands_each_image_over_once(
    model: ScriptedModel, tmp_path: Path
) -> None:
    image = tmp_path / "frame.png"
    image.touch()
    lines = f"/image {image}\nWhat is it?\n\nAnd its colour?\n/quit\nnever asked\n"
    result = run("--chat", "--system", "Be brief.", stdin=lines)
    assert (result.exit_code, result.stdout) == (0, "a cup\na cup\n")
    assert model.system == "Be brief."
    assert [prompt for prompt, _ in model.asked] == ["What is it?", "And its colour?"]
    assert [options["images"] for _, options in model.asked] == [[str(image)], []]


def test_a_data_url_keeps_all_its_slashes(model: ScriptedModel) -> None:
    url = "data:image/png;base64,AA//BB=="
    run("What is it?", "--image", url)
    run("--chat", stdin=f"/image {url}\nWhat is it?\n")
    assert [options["images"] for _, options in model.asked] == [[url], [url]]


@pytest.mark.parametrize("name", ["x" * 5000, "~nobody-of-this-name/a.png", "a\0b"])
def test_a_chat_goes_on_after_an_image_that_is_no_path(model: ScriptedModel, name: str) -> None:
    result = run("--chat", stdin=f"/image {name}\nStill there?\n")
    assert (result.exit_code, result.stdout) == (0, "a cup\n")
    assert "/image" in result.stderr and len(result.stderr) < 300


def test_a_chat_goes_on_after_an_image_that_is_not_there(model: ScriptedModel) -> None:
    result = run("--chat", stdin="/image nowhere.png\nStill there?\n")
    assert result.stdout == "a cup\n"
    assert "nowhere.png" in result.stderr
