"""What points are made of: the stages before the first token, and quality by type of question."""

from __future__ import annotations

from collections.abc import Sequence

from tightrope.profiles.frontier.report.records import Record
from tightrope.profiles.frontier.report.themes import Spec

BAR, ROW = 18, 24
"""Pixels of a point, and of a type of question."""
BRIGHT = 0.47
"""From this share on the shade is bright, and what stands on it black."""


def stages_by_point(found: Sequence[Record]) -> Spec:
    """Stacked; found: of `stage_records`."""
    stages = list(dict.fromkeys(record["stage"] for record in found))
    return {
        "height": {"step": BAR},
        "data": {"values": list(found)},
        "mark": {"type": "bar"},
        "encoding": {
            "y": {
                "field": "label",
                "type": "nominal",
                "sort": None,
                "title": None,
                "axis": {"labelLimit": {"expr": "windowSize()[0] < 700 ? 150 : 320"}},
            },
            "x": {
                "field": "ms",
                "type": "quantitative",
                "aggregate": "sum",
                "title": "ms, means",
                "axis": {"tickCount": 5},
            },
            "color": {
                "field": "stage",
                "type": "nominal",
                "scale": {"domain": stages, "range": [f"@{stage}" for stage in stages]},
                "legend": {"columns": 3},
            },
            "order": {"field": "place"},
            "tooltip": [
                {"field": "label", "title": "point"},
                {"field": "stage"},
                {"field": "ms", "aggregate": "sum", "format": ".1f", "title": "ms"},
            ],
        },
    }


def quality_by_type(found: Sequence[Record], order: Sequence[str], measure: str) -> Spec:
    """Shaded, each share written in; found: of `type_records`, order: of its types."""
    shade = {
        "field": "share",
        "type": "quantitative",
        "title": measure,
        "scale": {"scheme": "cividis", "domain": [0, 1]},
        "legend": {"format": ".0%", "gradientLength": 160},
    }
    text = {
        "condition": {"test": f"datum.share > {BRIGHT}", "value": "#000000"},
        "value": "#ffffff",
    }
    percent = {"calculate": "format(100 * datum.share, '.0f')", "as": "percent"}
    return {
        "height": {"step": ROW},
        "data": {"values": list(found)},
        "encoding": {
            "x": {
                "field": "number",
                "type": "ordinal",
                "title": "point of the frontier, the fastest first",
                "axis": {"orient": "top", "labelAngle": 0},
            },
            "y": {
                "field": "type",
                "type": "nominal",
                "sort": list(order),
                "title": None,
                "axis": {"labelLimit": 110},
            },
        },
        "layer": [
            {"mark": "rect", "encoding": {"color": shade, "tooltip": _tooltip(measure)}},
            {
                "transform": [percent],
                "mark": {"type": "text", "fontSize": 11},
                "encoding": {"text": {"field": "percent"}, "color": text},
            },
        ],
    }


def _tooltip(measure: str) -> list[Spec]:
    return [
        {"field": "type"},
        {"field": "number", "title": "point"},
        {"field": "name", "title": "spends"},
        {"field": "share", "title": measure, "format": ".3f"},
        {"field": "low", "title": "95 %, from", "format": ".3f"},
        {"field": "high", "title": "to", "format": ".3f"},
        {"field": "questions"},
    ]
