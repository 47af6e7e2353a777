"""Options that several subcommands share, and the operating point that they spell."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tightrope.checks import check_one_of
from tightrope.configs import help_of
from tightrope.point import Keep, OperatingPoint
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
Backend = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="tensorrt, onnxruntime-cuda, onnxruntime, or auto: the first of them that is ready.",
    ),
]
Selector = Annotated[str | None, option(OperatingPoint, "selector", metavar="NAME")]
KeepText = Annotated[str | None, option(OperatingPoint, "keep", metavar="K")]
Policy = Annotated[str | None, option(OperatingPoint, "policy", metavar="NAME")]
KvBudget = Annotated[str | None, option(OperatingPoint, "kv_budget", metavar="N")]
Threads = Annotated[
    int | None, typer.Option(metavar="N", help="Threads of the CPU backend; all cores if not.")
]
Resolution = Annotated[int | None, option(OperatingPoint, "resolution", metavar="PIXELS")]
Sinks = Annotated[int | None, option(OperatingPoint, "sinks", metavar="N")]
Thinking = Annotated[str | None, option(Options, "thinking", metavar="on|off")]
ThinkingTokens = Annotated[int | None, option(OperatingPoint, "thinking_tokens", metavar="N")]
Recent = Annotated[int | None, option(OperatingPoint, "recent", metavar="N")]


def parse_thinking(text: str | None) -> bool | None:
    """on or off; None where nothing was said."""
    if text is None:
        return None
    choices = {"on": True, "off": False}
    check_one_of("thinking", text, choices)
    return choices[text]


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
