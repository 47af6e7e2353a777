"""The board on the page of figures: what sensors read, what was counted, nothing of a user."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tightrope.jetson.sensors import sensors_of
from tightrope.jetson.telemetry import Telemetry
from tightrope.runtime.server.board import BoardFigures

Page = Callable[[], dict[tuple[str, str], float]]


@pytest.fixture
def root(boards: ModuleType, tmp_path: Path) -> Path:
    placed: Path = boards.laid_out(tmp_path, boards.files_of(boards.KITS["Orin Nano 8GB"]))
    return placed


@pytest.fixture
def telemetry(root: Path, monkeypatch: pytest.MonkeyPatch) -> Telemetry:
    """Without its thread."""
    found = Telemetry(sensors_of(root))
    monkeypatch.setattr(found, "wake", lambda: None)
    return found


def figures(telemetry: Telemetry | None, root: Path) -> dict[tuple[str, ...], float]:
    """Values by name and labels."""
    registry = CollectorRegistry()
    registry.register(BoardFigures(telemetry, root))
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        (sample.name.removeprefix("tightrope_board_"), *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


def test_memory_power_heat_and_events_are_told(root: Path, telemetry: Telemetry) -> None:
    telemetry.look()
    found = figures(telemetry, root)
    assert found["memory_bytes", "total"] == 7607 << 20
    assert found["memory_bytes", "cma_free"] == 900 << 20
    assert found["memory_bytes", "largest_free_piece"] == 4 << 20
    assert found["power_watts", "total"] == found["power_watts", "VDD_IN"] == pytest.approx(6.0)
    assert found["power_watts", "VDD_SOC"] == pytest.approx(5 * 0.462)
    assert found["temperature_celsius", "tj"] == pytest.approx(49.593)
    assert found[("throttled",)] == 0
    assert found[("throttle_events_total",)] == found[("over_current_events_total",)] == 0


def test_what_holds_the_board_back_is_flagged_and_counted(
    root: Path, telemetry: Telemetry, boards: ModuleType
) -> None:
    telemetry._look_at_events()
    (root / boards.THERMAL / "cooling_device1/cur_state").write_text("1\n")
    (root / boards.HWMON / "hwmon3/oc3_event_cnt").write_text("5\n")
    telemetry._look_at_events()
    found = figures(telemetry, root)
    assert found[("throttled",)] == found["throttled_by", "gpu-throttle-alert"] == 1
    assert found[("throttle_events_total",)] == 1
    assert found[("over_current_events_total",)] == 3


def test_energy_is_counted_as_long_as_somebody_looks(root: Path) -> None:
    now = [0.0]
    telemetry = Telemetry(sensors_of(root), clock=lambda: now[0])
    telemetry.wake = lambda: None  # type: ignore[method-assign]
    for now[0] in (0.0, 0.5, 1.0, 1.5, 2.0, 60.0):  # what lies between the last two is not known
        telemetry.look()
    found = figures(telemetry, root)
    assert found["energy_joules_total", "INA3221 VDD_IN"] == pytest.approx(12.0)


def test_sensors_that_vanish_leave_their_places_empty(root: Path, telemetry: Telemetry) -> None:
    for file in [*root.rglob("curr1_input"), *root.rglob("temp"), root / "proc/meminfo"]:
        file.unlink()
    found = figures(telemetry, root)
    assert ("power_watts", "total") not in found and ("power_watts", "VDD_SOC") in found
    assert not any(name[0] == "temperature_celsius" for name in found)
    assert ("memory_bytes", "total") not in found


def test_a_machine_without_sensors_tells_its_memory(tmp_path: Path) -> None:
    found = figures(None, tmp_path)
    assert {name for name, *_ in found} == {"memory_bytes"}


def test_the_servers_page_has_them(client: Any) -> None:
    assert (
        'tightrope_board_memory_bytes{kind="available"}' in client.get("/metrics").content.decode()
    )
