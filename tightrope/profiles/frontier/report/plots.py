"""The plots of a report, as specifications of Vega-Lite: the page and the images draw the same.

https://vega.github.io/vega-lite/docs/
"""

from __future__ import annotations

from dataclasses import dataclass

from tightrope.profiles.frontier.report.against import quality_against
from tightrope.profiles.frontier.report.parts import quality_by_type, stages_by_point
from tightrope.profiles.frontier.report.records import (
    AXES,
    records_by,
    stage_records,
    type_records,
)
from tightrope.profiles.frontier.report.report import Report
from tightrope.profiles.frontier.report.themes import Spec

CONFIG = {
    "font": "system-ui, sans-serif",
    "background": None,
    "axis": {
        "labelColor": "@muted",
        "titleColor": "@ink",
        "gridColor": "@grid",
        "domainColor": "@muted",
        "tickColor": "@muted",
        "labelFontSize": 12,
        "titleFontSize": 13,
        "titleFontWeight": "normal",
    },
    "legend": {
        "labelColor": "@ink",
        "titleColor": "@ink",
        "labelFontSize": 12,
        "orient": "top",
        "title": None,
    },
    "view": {"stroke": None},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """One plot."""

    name: str
    """Of its files."""
    heading: str
    spec: Spec
    """As wide as its place; colours are named, see `themes`."""


def plots(report: Report) -> list[Plot]:
    """Those that something was measured for."""
    measure = report.quality.key.measure
    drawn = []
    for axis in AXES:
        if found := records_by(report, axis):
            text = f"{measure.capitalize()} of {len(found)} operating points by {axis.title}."
            spec = quality_against(axis, found, measure)
            drawn.append(_plot(axis.name, axis.heading, text, spec))
    if stages := stage_records(report):
        text = "Mean milliseconds of each stage before the first token, point by point."
        spec = stages_by_point(stages)
        drawn.append(_plot("stages", "What the first token waits for", text, spec))
    if by_type := type_records(report):
        heading = f"{measure.capitalize()} by type of question"
        text = f"{heading}, at each point of the frontier."
        spec = quality_by_type(by_type, report.types_by_loss(), measure)
        drawn.append(_plot("types", heading, text, spec))
    return drawn


def _plot(name: str, heading: str, description: str, spec: Spec) -> Plot:
    """description: what it shows, for those who do not see it."""
    whole = {"description": description, "width": "container", "config": CONFIG, **spec}
    return Plot(name=name, heading=heading, spec=whole)
