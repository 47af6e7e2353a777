"""Quality against what points cost: their intervals, the frontier joined, the knee, the choice."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor

from tightrope.profiles.frontier.report.records import (
    LATENCY,
    ON_FRONTIER,
    STATUSES,
    Axis,
    Record,
)
from tightrope.profiles.frontier.report.themes import Spec

HEIGHT = 340
"""Pixels."""
WIDE = 10.0
"""Ratio of the dearest to the cheapest point from which costs are drawn in equal ratios."""
TOOLTIP = (
    ("number", "point", None),
    ("name", "spends", None),
    ("quality", "quality", ".3f"),
    ("low", "95 %, from", ".3f"),
    ("high", "to", ".3f"),
    ("questions", "questions", None),
    ("p50", "answer p50, ms", ".1f"),
    ("p95", "p95, ms", ".1f"),
    ("p99", "p99, ms", ".1f"),
    ("ttft50", "first token p50, ms", ".1f"),
    ("slot_mib", "keys and values, MiB", ".1f"),
    ("peak_mib", "peak memory, MiB", ".0f"),
    ("energy_j", "energy, J", ".2f"),
    ("source", "times", None),
)
"""A record's field, what it is called, and how its number is written."""

_BEST = f"datum.status === '{ON_FRONTIER}'"
_FADED = {"opacity": {"condition": {"test": _BEST, "value": 1}, "value": 0.4}}
_LINES: Spec = {
    "color": {"condition": {"test": _BEST, "value": "@frontier"}, "value": "@dim"},
    **_FADED,
}
"""Of intervals, which have no place in the legend."""


def quality_against(axis: Axis, found: Sequence[Record], measure: str) -> Spec:
    """found: of `records_by`. Parameters: `deadline` in ms, `chosen`, a point's number; 0: none."""
    x = {
        "field": axis.field,
        "type": "quantitative",
        "title": axis.title,
        "scale": _costs(axis, found),
        "axis": {"tickCount": 6},
    }
    y = {
        "field": "quality",
        "type": "quantitative",
        "title": measure,
        "scale": {"domain": _qualities(found), "nice": False},
    }
    return {
        "height": HEIGHT,
        "data": {"values": list(found)},
        "params": [{"name": "deadline", "value": 0}, {"name": "chosen", "value": 0}],
        "layer": [
            *_intervals(axis, x, y),
            *_points(axis, x, y, found),
            *_knee(x, y),
            *_choice(axis, x, y),
        ],
    }


def _layer(mark: Spec, encoding: Spec, transform: Sequence[Spec] = ()) -> Spec:
    """Read aloud are points alone, unless `mark` says otherwise: lines say the same again."""
    looks = {"clip": True, "aria": False, **mark}
    return {"mark": looks, "encoding": encoding, "transform": list(transform)}


def _intervals(axis: Axis, x: Spec, y: Spec) -> list[Spec]:
    rule = {"type": "rule"}
    upright = {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}, **_LINES}
    if axis.ends is None:
        return [_layer(rule, upright)]
    low, high = axis.ends
    level = {"x": {**x, "field": low}, "x2": {"field": high}, "y": y, **_LINES}
    return [_layer(rule, upright), _layer(rule, level)]


def _points(axis: Axis, x: Spec, y: Spec, found: Sequence[Record]) -> list[Spec]:
    """The frontier is a stair: what is reached for a cost, until the next point is."""
    stair = {"type": "line", "interpolate": "step-after", "strokeWidth": 2, "color": "@frontier"}
    status: Spec = {"field": "status", "type": "nominal"}
    colours = {"domain": list(STATUSES), "range": ["@frontier", "@dim", "@dim"]}
    shapes = {"domain": list(STATUSES), "range": ["circle", "square", "triangle-down"]}
    looks = {
        "color": {**status, "scale": colours},
        "shape": {**status, "scale": shapes},
        **_FADED,
    }
    tooltip = [
        {"field": field, "title": title, **({} if form is None else {"format": form})}
        for field, title, form in TOOLTIP
        if any(record.get(field) is not None for record in found)
    ]
    number = {"type": "text", "dx": 9, "dy": -9, "fontSize": 12, "color": "@ink", "clip": False}
    best = [{"filter": _BEST}]
    return [
        _layer(stair, {"x": x, "y": y, "order": {"field": axis.field}}, best),
        _layer(
            {"type": "point", "filled": True, "size": 90, "aria": True},
            {"x": x, "y": y, **looks, "tooltip": tooltip},
        ),
        _layer(number, {"x": x, "y": y, "text": {"field": "number"}}, best),
    ]


def _knee(x: Spec, y: Spec) -> list[Spec]:
    diamond = {"type": "point", "shape": "diamond", "size": 330, "strokeWidth": 2}
    word = {"type": "text", "text": "knee", "dy": 22, "fontSize": 12}
    only = [{"filter": "datum.knee"}]
    return [_layer({**mark, "color": "@knee"}, {"x": x, "y": y}, only) for mark in (diamond, word)]


def _choice(axis: Axis, x: Spec, y: Spec) -> list[Spec]:
    """A ring around the point that is taken, and where the deadline is."""
    ring = {"type": "point", "size": 520, "strokeWidth": 2.5, "color": "@ink"}
    layers = [_layer(ring, {"x": x, "y": y}, [{"filter": "datum.number === chosen"}])]
    if axis is LATENCY:
        line = {"type": "rule", "strokeDash": [5, 4], "strokeWidth": 1.5, "color": "@ink"}
        at = [{"filter": "deadline > 0"}, {"calculate": "deadline", "as": axis.field}]
        layers.append({"data": {"values": [{}]}, **_layer(line, {"x": x}, at)})
    return layers


def _costs(axis: Axis, found: Sequence[Record]) -> Spec:
    fields = axis.ends or (axis.field, axis.field)
    low = min(record[fields[0]] for record in found)
    high = max(record[fields[1]] for record in found)
    if low > 0 and high / low > WIDE:
        return {"type": "log", "domain": [low * 0.85, high * 1.15], "nice": False}
    return {"domain": [0, high * 1.06], "nice": False}


def _qualities(found: Sequence[Record]) -> list[float]:
    """Twentieths around all intervals."""
    low = min(record["low"] for record in found)
    high = max(record["high"] for record in found)
    return [floor(low * 20) / 20, ceil(high * 20) / 20]
