"""The thread that looks: at sensors that move, that vanish, and not for ever."""

from __future__ import annotations

import threading
from pathlib import Path
from types import ModuleType

import pytest

from tightrope.jetson import telemetry as module
from tightrope.jetson.sensors import Sensors, sensors_of
from tightrope.jetson.telemetry import SLOW_EVERY, Telemetry


class Tree:
    """A board's files, and a clock."""

    def __init__(self, boards: ModuleType, root: Path, name: str = "Orin Nano 8GB") -> None:
        self.root = boards.laid_out(root, boards.files_of(boards.KITS[name]))
        self.hwmon, self.thermal = root / boards.HWMON, root / boards.THERMAL
        self.now = 0.0
        self.telemetry = Telemetry(sensors_of(root), clock=lambda: self.now)

    def watts(self, watts: float) -> None:
        (self.hwmon / "hwmon1/curr1_input").write_text(f"{watts / 5 * 1000:.0f}\n")

    def look(self, seconds: float) -> None:
        for _ in range(round(seconds * 20)):
            self.telemetry.look()
            self.now += 0.05


@pytest.fixture
def tree(boards: ModuleType, tmp_path: Path) -> Tree:
    return Tree(boards, tmp_path)


def test_what_sensors_say_is_recorded(tree: Tree) -> None:
    tree.look(5.0)
    tree.watts(20.0)
    tree.look(5.0)
    found = tree.telemetry.record.between(6.0, 9.0)
    assert found.energy_j == pytest.approx(60.0, rel=0.01)
    assert found.hottest_c == pytest.approx(49.593)


def test_throttling_and_over_current_belong_to_their_time(tree: Tree) -> None:
    tree.look(2.0)
    (tree.thermal / "cooling_device1/cur_state").write_text("1\n")
    (tree.hwmon / "hwmon3/oc3_event_cnt").write_text("7\n")
    (tree.hwmon / "hwmon1/curr1_crit_alarm").write_text("1\n")
    tree.look(2.0)
    (tree.thermal / "cooling_device1/cur_state").write_text("0\n")
    tree.look(2.0)
    record = tree.telemetry.record
    meanwhile = record.between(1.0, 5.0)
    assert meanwhile.throttled == ("gpu-throttle-alert",)
    assert meanwhile.over_current == 5 + 1
    assert not record.between(0.0, 1.5).held_back
    assert not record.between(5.0, 6.0).held_back


def test_a_sensor_may_vanish_and_come_back(tree: Tree) -> None:
    tree.look(3.0)
    file = tree.hwmon / "hwmon1/curr1_input"
    file.unlink()
    for zone in tree.thermal.glob("thermal_zone*/temp"):
        zone.unlink()
    tree.look(2.0)
    file.write_text("1000\n")
    tree.look(4.0)
    record = tree.telemetry.record
    assert record.between(2.0, 6.0).why == "the power sensor could not be read all the time"
    assert record.between(6.0, 9.0).energy_j == pytest.approx(15.0, rel=0.01)
    assert record.between(6.0, 9.0).hottest_c is None


def test_slow_things_are_looked_at_seldom(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[float] = []

    def noted(found: Sensors) -> tuple[str, ...]:
        looked.append(tree.now)
        return ()

    monkeypatch.setattr(module, "throttled_by", noted)
    tree.look(10.0)
    assert len(looked) == 200 / SLOW_EVERY


def test_it_looks_while_somebody_wants_to_know(
    boards: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AWAKE_S", 0.3)
    root = boards.laid_out(tmp_path, boards.files_of(boards.KITS["Orin Nano 8GB"]))
    telemetry = Telemetry(sensors_of(root))
    telemetry.begin()
    telemetry.wake()
    thread = telemetry._thread
    assert thread is not None and thread.is_alive()
    assert sum(each.name == thread.name for each in threading.enumerate()) == 1
    thread.join(20)
    assert not thread.is_alive() and telemetry._thread is None
    seen = len(telemetry.record.curve()[0].times)
    assert seen >= 2
    telemetry.wake()  # and again
    assert telemetry._thread is not None
    telemetry._thread.join(20)
    assert len(telemetry.record.curve()[0].times) > seen


def test_a_counter_is_read_where_a_stretch_begins_and_ends(
    boards: ModuleType, tmp_path: Path
) -> None:
    folder = "sys/class/powercap/intel-rapl:0"
    files = {
        f"{folder}/name": "package-0\n",
        f"{folder}/energy_uj": "0\n",
        f"{folder}/max_energy_range_uj": "100000000\n",
    }
    root, now = boards.laid_out(tmp_path, files), [0.0]
    telemetry = Telemetry(sensors_of(root), clock=lambda: now[0])
    telemetry.look()
    now[0] = 0.01
    (root / folder / "energy_uj").write_text("1000000\n")
    telemetry._count_now()
    now[0] = 0.04
    (root / folder / "energy_uj").write_text("3000000\n")
    found = telemetry.spent(0.01, 0.04, 0.02, 0)
    assert found.energy_j == pytest.approx(2.0)
    assert found.source == "RAPL package-0, the processor alone"


def test_a_machine_without_sensors_has_no_telemetry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROOT", tmp_path)
    assert module._telemetry_of.__wrapped__(1) is None
