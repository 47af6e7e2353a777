"""`run` against a model whose answers are known: what goes in, and what is printed where."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

import tightrope
from tightrope.budget import Budget
from tightrope.bundle import Bundle
from tightrope.cli import app, report
from tightrope.cli.plan import plan_rows
from tightrope.errors import BudgetUnreachable, InputError
from tightrope.latency_file import write_latency
from tightrope.point import OperatingPoint
from tightrope.runtime.key import latency_key
from tightrope.runtime.model import Model
from tightrope.runtime.plan import Expected, Plan

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
        spent=None,
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


def test_frames_come_with_their_seconds(model: ScriptedModel) -> None:
    run("q", "--frame", "0:a.png", "--frame", "0.5:C:/b.png")
    assert model.asked[0][1]["frames"] == [(0.0, "a.png"), (0.5, "C:/b.png")]


@pytest.mark.parametrize("given", ["a.png", "now:a.png", "1:", ":a.png"])
def test_a_frame_without_its_seconds_is_told(model: ScriptedModel, given: str) -> None:
    result = run("q", "--frame", given)
    assert isinstance(result.exception, InputError) and "SECONDS:FILE" in str(result.exception)


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


@pytest.mark.parametrize(
    ("options", "budget"),
    [
        (("--deadline", "900ms"), Budget(deadline_ms=900)),
        (("--deadline", "1.5s"), Budget(deadline_ms=1500)),
        (("--deadline", " 900 "), Budget(deadline_ms=900)),
        (("--first-token", "0.3s"), Budget(first_token_ms=300)),
        (("--min-quality", "0.5"), Budget(min_quality=0.5)),
        (
            ("--deadline", "2s", "--plan-task", "mix", "--best-effort"),
            Budget(deadline_ms=2000, task="mix", if_unreachable="best_effort"),
        ),
        ((), None),
    ],
)
def test_a_budget_reaches_the_model(
    options: tuple[str, ...], budget: Budget | None, model: ScriptedModel
) -> None:
    for more in ((), ("--json",), ("--n", "2")):
        assert run("q", *options, *more).exit_code == 0
        assert model.asked[-1][1]["budget"] == budget


@pytest.mark.parametrize("name", ["--deadline", "--first-token"])
@pytest.mark.parametrize(
    "text", ["soon", "", "0", "0ms", "-5ms", "nan", "inf", "infs", "ms", "9 minutes", "1e999"]
)
def test_a_time_that_is_none_is_told_with_what_is_accepted(
    name: str, text: str, model: ScriptedModel
) -> None:
    result = run("q", f"{name}={text}")
    assert result.exit_code != 0 and model.asked == []
    assert isinstance(result.exception, InputError)
    assert str(result.exception).startswith(f"{name} is {text!r}; accepted: a time above 0, as 900")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--min-quality", "1.5"), "min_quality is 1.5"),
        (("--min-quality", "nan"), "min_quality is nan"),
        (("--best-effort",), "there is no budget"),
        (("--plan-task", "mix"), "there is no budget"),
        (("--thinking", "maybe"), "thinking is 'maybe'"),
        (("--thinking-tokens", "-1"), "thinking_tokens is -1"),
    ],
)
def test_what_plans_nothing_is_refused(
    options: tuple[str, ...], words: str, model: ScriptedModel
) -> None:
    result = run("q", *options)
    assert isinstance(result.exception, InputError) and model.asked == []
    assert words in str(result.exception)


def test_a_turn_that_is_refused_does_not_end_a_chat(
    model: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was to be shown with it is shown with the next."""
    answered, refusals = model.stream, [BudgetUnreachable("deadline 5 ms cannot be met")]

    def stream(prompt: Any, **options: Any) -> Iterator[Any]:
        assert options["budget"] == Budget(deadline_ms=5)
        if refusals:
            raise refusals.pop()
        return answered(prompt, **options)

    monkeypatch.setattr(model, "stream", stream)
    turns = ("--chat", "--deadline", "5ms", "--image", "a.png")
    result = run(*turns, stdin="What is it?\nAnd now?\n")
    assert (result.exit_code, result.stdout) == (0, "a cup\n")
    assert "cannot be met" in result.stderr
    assert [(prompt, options["images"]) for prompt, options in model.asked] == [
        ("And now?", ["a.png"])
    ]


def test_thoughts_are_asked_for_or_not(model: ScriptedModel) -> None:
    for options, thinking, tokens in (
        (("--thinking", "on"), True, None),
        (("--thinking", "off"), False, None),
        (("--thinking-tokens", "0"), None, 0),
        (("--thinking", "on", "--thinking-tokens", "32"), True, 32),
        ((), None, None),
    ):
        run("q", *options)
        asked = model.asked[-1][1]
        assert asked["thinking"] is thinking
        assert (asked["point"] and asked["point"].thinking_tokens) == tokens


def plan(**changed: Any) -> Plan:
    usual: dict[str, Any] = {
        "point": OperatingPoint(resolution=224),
        "quality": 0.75,
        "quality_source": "measured",
        "task": "mix",
        "completion_tokens": 12,
        "cached_tokens": 0,
        "ttft": Expected(p50_ms=100, p95_ms=110, p99_ms=120),
        "total": Expected(p50_ms=200, p95_ms=220, p99_ms=240),
        "waiting_ms": 30.0,
        "speed": 1.25,
        "fitting": 5,
        "alike": 2,
        "points": 9,
        "best_effort": False,
    }
    return Plan(**(usual | changed))


def test_a_plan_is_told_in_words() -> None:
    rows = dict(plan_rows(plan()))
    assert rows["planned"] == "224 px"
    assert rows["why"] == "5 of 9 points fit, 2 as good as the best: the fastest of those"
    assert rows["quality"] == "0.750 on mix"
    assert rows["predicted ms"] == "200, 99 of 100 within 240"
    assert rows["first token ms"] == "100, 99 of 100 within 120"
    assert rows["planned for"] == "12 tokens"
    assert (
        dict(plan_rows(plan(cached_tokens=7)))["planned for"] == "12 tokens, 7 of the prompt kept"
    )
    assert rows["of these waiting"] == "30"
    assert rows["machine"].startswith("1.25 of the time")
    assumed = dict(plan_rows(plan(quality=None, quality_source="assumed", task=None, alike=1)))
    assert assumed["quality"].startswith("assumed")
    assert assumed["why"] == "5 of 9 points fit: the best"
    cheapest = dict(plan_rows(plan(best_effort=True, fitting=0)))
    assert cheapest["why"] == "the cheapest: none of 9 points meets the budget"


@pytest.fixture
def scripted_machine(
    bundle: Any,
    machines: Any,
    synthetic: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Any:
    """A real model without arithmetic, and a latency file for it."""
    monkeypatch.setenv("TIGHTROPE_STATE", str(tmp_path / "state"))
    opened = Bundle.open(bundle("llama"))
    words = [*machines.letters(opened, "cup"), machines.END]
    machine = machines.Machine(opened, words, step_s=0.004, chunk_s=0.01)
    real = Model(opened, machine, machine.clock)
    write_latency(opened, replace(synthetic.RECORD, key=latency_key(opened, machine)))
    monkeypatch.setitem(vars(tightrope), "load", lambda path, **options: real)
    return machine


def test_a_deadline_is_planned_kept_and_explained(scripted_machine: Any) -> None:
    result = run("q", "--deadline", "900ms", "--max-tokens", "8", "--explain")
    assert (result.exit_code, result.stdout) == (0, "cup\n")
    for words in ("planned", "1 of 1 points fit", "assumed", "deadline met", "yes"):
        assert words in result.stderr
    told = json.loads(run("q", "--deadline", "900ms", "--max-tokens", "8", "--json").stdout)
    assert told["deadline_met"] is True
    assert told["plan"]["fitting"] == 1 and told["finish_reason"] == "stop"


def test_a_dry_run_tells_the_plan_and_does_nothing(scripted_machine: Any) -> None:
    result = run("q", "--deadline", "900ms", "--max-tokens", "8", "--dry-run")
    assert result.exit_code == 0 and scripted_machine.chunks == 0
    assert "Plan" in result.stdout and "1 of 1 points fit" in result.stdout
    told = json.loads(
        run("q", "--deadline", "900ms", "--max-tokens", "8", "--dry-run", "--json").stdout
    )
    assert told["plan"]["points"] == 1


def test_a_deadline_that_cannot_be_met_is_refused_with_a_code_of_its_own(
    scripted_machine: Any,
) -> None:
    for options in ((), ("--dry-run",), ("--json",)):
        result = run("q", "--deadline", "30ms", "--max-tokens", "8", *options)
        error = result.exception
        assert isinstance(error, BudgetUnreachable) and report(error) == 3
        assert result.stdout == ""
        assert "deadline 30 ms cannot be met" in str(error) and "max_tokens of" in str(error)


def test_the_best_effort_answers_all_the_same(scripted_machine: Any) -> None:
    result = run("q", "--deadline", "30ms", "--max-tokens", "8", "--best-effort", "--explain")
    assert result.exit_code == 0
    assert "none of 1 points meets the budget" in result.stderr
