"""Options that several subcommands share, and the operating point that they spell."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from tightrope.budget import Budget
from tightrope.checks import check_one_of, shown
from tightrope.configs import help_of
from tightrope.errors import InputError
from tightrope.point import Keep, OperatingPoint
from tightrope.runtime.ceiling import Ceiling
from tightrope.runtime.options import Options


def option(
    config: type, name: str, *flags: str, metavar: str | None = None, repeated: bool = False
) -> Any:
    """The option that sets `name` of a config class, with the sentence that is said there.

    repeated: it may be given several times, and the help says so.
    """
    sentence = help_of(config, name)
    if repeated:
        sentence = f"{sentence.removesuffix('.')}; may be repeated."
    return typer.Option(*flags, metavar=metavar, help=sentence)


BundlePath = Annotated[
    Path, typer.Argument(metavar="BUNDLE", help="The folder that `tightrope export` wrote.")
]
# An empty metavar: typer would write <bool> beside a flag.
Json = Annotated[
    bool, typer.Option("--json", metavar="", help="Print one JSON object and nothing else.")
]
# No Path, which would join the slashes of a data URL.
Images = Annotated[
    list[str] | None,
    typer.Option("--image", metavar="FILE", help="An image, or its data URL; may be repeated."),
]
Frames = Annotated[
    list[str] | None,
    typer.Option(
        "--frame",
        metavar="SECONDS:FILE",
        help="A frame of a clip and when it was taken; may be repeated, earlier ones first.",
    ),
]
Backend = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="tensorrt, onnxruntime, onnxruntime-cuda, or auto: tensorrt where it is ready, else "
        "onnxruntime.",
    ),
]
Selector = Annotated[str | None, option(OperatingPoint, "selector", metavar="NAME")]
KeepText = Annotated[str | None, option(OperatingPoint, "keep", metavar="K")]
Policy = Annotated[str | None, option(OperatingPoint, "policy", metavar="NAME")]
KvBudget = Annotated[str | None, option(OperatingPoint, "kv_budget", metavar="N")]
Threads = Annotated[
    int | None, typer.Option(metavar="N", help="Threads of the CPU backend; all cores if not.")
]
Unencrypted = Annotated[
    bool,
    typer.Option(
        "--unencrypted",
        metavar="",
        help="Take a tcp:// scheduler: whoever reaches it runs any program on every worker.",
    ),
]
Resolution = Annotated[int | None, option(OperatingPoint, "resolution", metavar="PIXELS")]
Sinks = Annotated[int | None, option(OperatingPoint, "sinks", metavar="N")]
Thinking = Annotated[str | None, option(Options, "thinking", metavar="on|off")]
ThinkingTokens = Annotated[int | None, option(OperatingPoint, "thinking_tokens", metavar="N")]
Deadline = Annotated[str | None, option(Budget, "deadline_ms", "--deadline", metavar="900ms")]
FirstToken = Annotated[
    str | None, option(Budget, "first_token_ms", "--first-token", metavar="300ms")
]
Energy = Annotated[float | None, option(Budget, "energy_j", "--energy", metavar="J")]
MinQuality = Annotated[float | None, option(Budget, "min_quality", metavar="X")]
Task = Annotated[str | None, option(Budget, "task", metavar="NAME")]
Question = Annotated[
    str | None,
    typer.Option(
        "--prompt", metavar="TEXT", help="Predict for this question; a made-up one if not."
    ),
]
PlanTask = Annotated[str | None, option(Budget, "task", "--plan-task", metavar="NAME")]
BestEffort = Annotated[
    bool,
    typer.Option(
        "--best-effort", metavar="", help="Where no point meets the budget: take the cheapest."
    ),
]
Recent = Annotated[int | None, option(OperatingPoint, "recent", metavar="N")]
MaxTemp = Annotated[float | None, option(Ceiling, "max_temp", metavar="C")]
MaxWatts = Annotated[float | None, option(Ceiling, "max_watts", metavar="W")]


def parse_duration_ms(name: str, text: str) -> float:
    """ "900ms", "1.5s" or "900" in milliseconds; raises InputError naming the option."""
    number, unit = text.strip(), 1.0
    for ending, ms in (("ms", 1.0), ("s", 1000.0)):
        if number.endswith(ending):
            number, unit = number[: -len(ending)], ms
            break
    try:
        value = float(number) * unit
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise InputError(f"{name} is {shown(text)}; accepted: a time above 0, as 900ms or 1.5s")
    return value


def budget_of(
    *,
    deadline: str | None,
    first_token: str | None,
    energy: float | None = None,
    min_quality: float | None,
    task: str | None,
    best_effort: bool,
) -> Budget | None:
    """The budget that the options spell, or None where none of them was given."""
    if deadline is None and first_token is None and energy is None and min_quality is None:
        if task is not None or best_effort:
            raise InputError(
                "--plan-task and --best-effort say how to plan, but there is no budget; accepted: "
                "--deadline, --first-token, --energy or --min-quality beside them"
            )
        return None
    return Budget(
        deadline_ms=None if deadline is None else parse_duration_ms("--deadline", deadline),
        first_token_ms=None
        if first_token is None
        else parse_duration_ms("--first-token", first_token),
        energy_j=energy,
        min_quality=min_quality,
        task=task,
        if_unreachable="best_effort" if best_effort else "refuse",
    )


def parse_thinking(text: str | None) -> bool | None:
    """on or off; None where nothing was said."""
    if text is None:
        return None
    choices = {"on": True, "off": False}
    check_one_of("thinking", text, choices)
    return choices[text]


def parse_logit_bias(texts: list[str] | None) -> dict[int, float] | None:
    """ "12=-5" for each token; None where nothing was said."""
    bias: dict[int, float] = {}
    for text in texts or ():
        token, _, value = text.partition("=")
        try:
            bias[int(token)] = float(value)
        except ValueError:
            raise InputError(
                f"logit_bias is {shown(text)}; accepted: a token id and a number, as 12=-5"
            ) from None
    return bias or None


def parse_keep(text: str) -> Keep | tuple[Keep, ...]:
    """ "64", "25%", or "64,50%": one value for each link of a chain of selectors."""
    values = tuple(int(part) if part.isdecimal() else part for part in _parts(text))
    return values[0] if len(values) == 1 else values


def parse_kv_budget(text: str) -> int | tuple[int, ...]:
    """ "256", or "256,192,128": one value for each layer."""
    try:
        values = tuple(int(part) for part in _parts(text))
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no number of slots, nor one for each layer, such as 256,192",
            param_hint="--kv-budget",
        ) from None
    return values[0] if len(values) == 1 else values


def operating_point(
    *,
    selector: str | None = None,
    keep: str | None = None,
    policy: str | None = None,
    kv_budget: str | None = None,
    resolution: int | None = None,
    sinks: int | None = None,
    recent: int | None = None,
    thinking_tokens: int | None = None,
) -> OperatingPoint | None:
    """The point that the options spell, or None where none of them was given."""
    point = OperatingPoint(
        selector=selector,
        keep=None if keep is None else parse_keep(keep),
        policy=policy,
        kv_budget=None if kv_budget is None else parse_kv_budget(kv_budget),
        resolution=resolution,
        sinks=sinks,
        recent=recent,
        thinking_tokens=thinking_tokens,
    )
    return None if point == OperatingPoint() else point


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def parse_frames(given: list[str] | None) -> list[tuple[float, str]]:
    """What `--frame` says; raises InputError for anything else."""
    return [_frame(text) for text in given or ()]


def _frame(text: str) -> tuple[float, str]:
    seconds, _, file = text.partition(":")
    if file:
        with contextlib.suppress(ValueError):
            return float(seconds), file
    raise InputError(f"--frame is {text!r}; accepted: SECONDS:FILE, such as 0.5:a.png")
