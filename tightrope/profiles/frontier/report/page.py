"""The page: one HTML file that asks nothing of the network.

A template with the tables, the plots' specifications, and Vega-Lite's program, which draws them.
What changes with the slider was computed before: the page looks it up.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tightrope.errors import InputError
from tightrope.point import in_words
from tightrope.profiles.frontier.plans import DeadlinePlan
from tightrope.profiles.frontier.report.images import vega_bundle
from tightrope.profiles.frontier.report.origin import origin, request_in_words
from tightrope.profiles.frontier.report.plots import Plot
from tightrope.profiles.frontier.report.records import (
    AXES,
    LATENCY,
    Record,
    knee_of,
    records,
    records_by,
)
from tightrope.profiles.frontier.report.report import Report
from tightrope.profiles.frontier.report.themes import DARK, LIGHT, THEMES, variables
from tightrope.profiles.task.tally import Tally
from tightrope.runtime.plan import ADMITTED_BY, why
from tightrope.state import write_whole

FOLDER = Path(__file__).parent
COLUMNS = (
    ("quality", "quality", ".3f"),
    ("questions", "n", "d"),
    ("ttft50", "first token p50 ms", ".1f"),
    ("ttft95", "p95", ".1f"),
    ("p50", "answer p50 ms", ".1f"),
    ("p95", "p95", ".1f"),
    ("p99", "p99", ".1f"),
    ("needed", "planned for", ".1f"),
    ("slots", "slots", "d"),
    ("slot_mib", "keys and values MiB", ".1f"),
    ("peak_mib", "peak memory MiB", ".0f"),
    ("energy_j", "energy J", ".2f"),
)
"""Of the table: a record's field, its heading, and how its number is written."""


def write_page(report: Report, plots: Sequence[Plot], file: Path) -> None:
    """Write the page whole or not at all; raises InputError where it cannot be."""
    try:
        write_whole(file, page(report, plots))
    except OSError as error:
        raise InputError(
            f"{file} was not written ({error}); nothing is left of it: make room there, or name "
            "another file"
        ) from error


def page(report: Report, plots: Sequence[Plot]) -> str:
    """The page as HTML."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        **_texts(report),
        plots=plots,
        data=_data(report, plots),
        light=variables(LIGHT),
        dark=variables(DARK),
        css=_own("page.css"),
        js=_own("page.js"),
        vega=_inline(vega_bundle()),
    )


def _texts(report: Report) -> dict[str, Any]:
    """What the template says, ready to be read."""
    frontier, numbers = report.frontier, report.numbers
    by_latency = records_by(report, LATENCY)
    number = knee_of(by_latency)
    knee = next((record for record in by_latency if record["number"] == number), None)
    notes = [f"{in_words(row.point)}: {note}" for row in frontier.rows for note in row.notes]
    return {
        "name": Path(frontier.bundle).name,
        "machine": frontier.key,
        "task": report.quality.key,
        "measure": report.quality.key.measure,
        "questions": max(row.questions for row in frontier.rows),
        "times": _times(report),
        "plans": report.plans,
        "knee": knee,
        "best": [numbers[row.point] for row in report.best],
        "types": _types(report),
        "columns": [
            "no.",
            "point",
            *(heading for _, heading, _ in COLUMNS),
            "95 %",
            "times",
            "mark",
        ],
        "rows": _rows(report),
        "notes": [*frontier.notes, *notes],
        "agreement": None if frontier.agreement is None else frontier.agreement.in_words(),
        "request": request_in_words(frontier.request),
        "origin": origin(report),
    }


def _times(report: Report) -> str:
    sources = {row.took.source for row in report.frontier.rows if row.took is not None}
    if sources == {"measured"}:
        return "Times are measured."
    return "Times are predicted." if sources == {"predicted"} else "Some times are predicted."


def _rows(report: Report) -> list[Record]:
    rows = []
    for row, record in zip(report.frontier.rows, records(report), strict=True):
        low, high = record["low"], record["high"]
        mark = "on the frontier" if row.on_frontier else ""
        if row.beaten_by is not None:
            mark = f"left the race for {report.numbers[row.beaten_by]}"
        elif row.dominated_by is not None:
            mark = f"dominated by {report.numbers[row.dominated_by]}"
        cells = [_cell(record.get(field), form) for field, _, form in COLUMNS]
        interval = "-" if low is None else f"{low:.3f} to {high:.3f}"
        rows.append(
            {
                "number": record["number"],
                "dim": not row.on_frontier,
                "cells": [record["name"], *cells, interval, record["source"], mark],
            }
        )
    return rows


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _types(report: Report) -> list[tuple[str, list[str]]]:
    counts = [report.by_type(row) for row in report.best]
    return [
        (name, [_tally(found.get(name)) for found in counts]) for name in report.types_by_loss()
    ]


def _tally(found: Tally | None) -> str:
    if found is None or found.interval is None:
        return "-"
    low, high = found.interval
    return f"{found.accuracy:.3f} ({low:.2f} to {high:.2f}, n {found.n})"


def _data(report: Report, plots: Sequence[Plot]) -> dict[str, Any]:
    """What the page's own program reads."""
    drawn = {plot.name: plot.spec for plot in plots}
    return {
        "plots": drawn,
        "movable": [axis.name for axis in AXES if axis.name in drawn],
        "themes": THEMES,
        "plans": [_plan(report, planned) for planned in report.plans],
    }


def _plan(report: Report, planned: DeadlinePlan) -> dict[str, Any]:
    plan = planned.plan
    told: dict[str, Any] = {"deadline": planned.deadline_ms, "point": None}
    if plan is None:
        return told | {
            "name": "",
            "quality": "",
            "needed": f"the fastest takes {report.admitted_ms:.1f} ms in {ADMITTED_BY} of 100",
            "why": "a request with this deadline is refused",
        }
    row = next(row for row in report.frontier.rows if row.point == plan.point)
    low, high = row.interval or (0.0, 1.0)
    return told | {
        "point": report.numbers[plan.point],
        "name": in_words(plan.point),
        "quality": f"{plan.quality:.3f} ({low:.3f} to {high:.3f})",
        "needed": f"{plan.total.p99_ms:.1f} ms, for {plan.completion_tokens} tokens",
        "why": why(plan),
    }


def _own(name: str) -> Markup:
    return Markup((FOLDER / name).read_text(encoding="utf-8"))


def _inline(program: str) -> Markup:
    """A program as it may stand in a page: nothing in it ends its element."""
    return Markup(program.replace("</script", "<\\/script").replace("<!--", "<\\!--"))
