"""What Grafana and Prometheus are given, held against what the server really tells."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("starlette", reason="needs the extra [serve]")

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tightrope.jetson.sensors import sensors_of
from tightrope.jetson.telemetry import Telemetry
from tightrope.runtime.server.board import BoardFigures
from tightrope.runtime.server.metrics import Metrics
from tightrope.runtime.server.refusal import Refused

DASHBOARD = Path(__file__).resolve().parents[2] / "jetson" / "dashboard"
_NAME = re.compile(r"\b((?:tightrope|process)_\w+)(?:\{([^}]*)\})?")


class _Answer:
    """Whatever is read of it is a figure."""

    def __getattr__(self, name: str) -> Any:
        return {"token_ids": [1, 2], "finish_reason": "stop", "deadline_met": True}.get(
            name, _Figure() if name in ("usage", "timings") else 1
        )


class _Figure:
    def __getattr__(self, name: str) -> int:
        return 1


def told(figures: CollectorRegistry) -> dict[str, set[str]]:
    """Samples of a server's page on a board -> their labels; Prometheus adds its own."""
    metrics = Metrics(lambda: 1)
    metrics.answered("scene", _Answer())  # type: ignore[arg-type]
    metrics.refused(Refused(429, "x", code="busy"), "scene")
    metrics.left("scene")
    found: dict[str, set[str]] = {}
    for page in (metrics.page()[0], generate_latest(figures)):
        for family in text_string_to_metric_families(page.decode()):
            for sample in family.samples:
                found.setdefault(sample.name, {"instance", "job"}).update(sample.labels)
    return found


@pytest.fixture
def figures(boards: ModuleType, tmp_path: Path) -> CollectorRegistry:
    """Those of an Orin Nano that is held back."""
    root = boards.laid_out(tmp_path, boards.files_of(boards.KITS["Orin Nano 8GB"]))
    (root / boards.THERMAL / "cooling_device1/cur_state").write_text("1\n")
    now = [0.0]
    telemetry = Telemetry(sensors_of(root), clock=lambda: now[0])
    telemetry.wake = lambda: None  # type: ignore[method-assign]
    for now[0] in (0.0, 0.5, 1.0):
        telemetry.look()
    registry = CollectorRegistry()
    registry.register(BoardFigures(telemetry, root))
    return registry


def expressions(board: dict[str, Any]) -> list[str]:
    panels = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    variables = [
        entry["query"] for entry in board["templating"]["list"] if entry["name"] != "source"
    ]
    return panels + variables


def test_every_name_and_label_of_the_dashboard_is_told_by_the_server(
    figures: CollectorRegistry,
) -> None:
    board = json.loads((DASHBOARD / "grafana.json").read_text(encoding="utf-8"))
    known, asked = told(figures), expressions(board)
    assert len(asked) > 20
    for expression in asked:
        names = _NAME.findall(expression)
        assert names, expression
        for name, matchers in names:
            assert name in known, f"{name} in {expression}"
            assert set(re.findall(r"(\w+)(?:=~|=|!=)", matchers)) <= known[name], expression
        for labels in re.findall(r"by \(([^)]*)\)", expression):
            every = set.union(*(known[name] for name, _ in names))
            assert set(re.split(r",\s*", labels)) <= every, expression


def test_every_figure_of_the_server_is_on_the_dashboard(figures: CollectorRegistry) -> None:
    """But what Prometheus itself makes of a histogram or a counter, and the process's own."""
    board = json.loads((DASHBOARD / "grafana.json").read_text(encoding="utf-8"))
    shown = {name for expression in expressions(board) for name, _ in _NAME.findall(expression)}
    families = {re.sub(r"_(bucket|sum|count|total)$", "", name) for name in shown}
    ours = {
        re.sub(r"_(bucket|sum|count|total|created)$", "", name)
        for name in told(figures)
        if name.startswith("tightrope_")
    }
    assert ours <= families


def test_panels_lie_beside_each_other_and_have_names_of_their_own() -> None:
    board = json.loads((DASHBOARD / "grafana.json").read_text(encoding="utf-8"))
    places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in board["panels"]]
    assert len(set(places)) == len(places) == len({p["title"] for p in board["panels"]})
    assert len({panel["id"] for panel in board["panels"]}) == len(places)


def test_prometheus_asks_where_the_server_answers() -> None:
    text = (DASHBOARD / "prometheus.yml").read_text(encoding="utf-8")
    assert "metrics_path: /metrics" in text and "job_name: tightrope" in text
    assert "type: Bearer" in text  # with keys, the metrics ask for one too
