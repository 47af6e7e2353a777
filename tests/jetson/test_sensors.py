"""Power, heat and events from the files of each kind of sensor, sound and unsound."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from tightrope.jetson.sensors import hottest_c, look, sensors_of, total_watts
from tightrope.jetson.telemetry import _Counted

NANO = "Orin Nano 8GB"


def tree(boards: ModuleType, root: Path, name: str = NANO, **changes: str | None) -> Path:
    placed: Path = boards.laid_out(root, boards.files_of(boards.KITS[name], **changes))
    return placed


def test_each_board_has_its_total(boards: ModuleType, tmp_path: Path) -> None:
    found = {}
    for number, name in enumerate(boards.KITS):
        found[name] = sensors_of(tree(boards, tmp_path / str(number), name)).source
    assert found[NANO] == found["Orin NX 16GB"] == "INA3221 VDD_IN"
    assert found["AGX Orin 64GB"] == "INA3221 VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0"
    assert found["Thor T5000"] == "INA238 VIN"


def test_channels_that_are_none_are_left_out(boards: ModuleType, tmp_path: Path) -> None:
    hwmon = f"{boards.HWMON}/hwmon1"
    changes = {f"{hwmon}/in2_label": "NC\n", f"{hwmon}/in3_label": "sum of shunt voltages\n"}
    sensors = sensors_of(tree(boards, tmp_path, **changes))
    assert [rail.label for rail in sensors.rails] == ["VDD_IN"]
    assert total_watts(sensors) == pytest.approx(6.0)


def test_a_chip_is_found_once_by_its_two_names(boards: ModuleType, tmp_path: Path) -> None:
    root = tree(boards, tmp_path)
    other = root / "sys/bus/i2c/devices/1-0040/hwmon"
    other.mkdir(parents=True)
    (other / "hwmon1").symlink_to(root / boards.HWMON / "hwmon1")
    assert len(sensors_of(root).rails) == 3


@pytest.mark.parametrize("value", ["", "-5", "1000000000", "x", "0x10", "9" * 80])
def test_what_cannot_be_is_no_reading(value: str, boards: ModuleType, tmp_path: Path) -> None:
    changes = {f"{boards.HWMON}/hwmon1/curr1_input": value}
    changes[f"{boards.THERMAL}/thermal_zone3/temp"] = value
    found = look(sensors_of(tree(boards, tmp_path, **changes)))
    assert found.watts is None and "VDD_IN" in found.nonsense
    if value != "-5":  # which may be five thousandths of a degree below freezing
        assert found.temperatures["tj"] is None
    assert found.hottest_c == pytest.approx(49.593)


def test_files_that_vanish_are_no_error(boards: ModuleType, tmp_path: Path) -> None:
    root = tree(boards, tmp_path)
    sensors = sensors_of(root)
    assert total_watts(sensors) == pytest.approx(6.0)
    for file in [*root.rglob("curr1_input"), *root.rglob("temp"), *root.rglob("*_cnt")]:
        file.unlink()
    found = look(sensors)
    assert found.watts is None and hottest_c(sensors) is None
    assert set(found.temperatures.values()) == {None}
    assert set(found.over_current.values()) == {0, None}  # alarms stayed
    file = root / boards.HWMON / "hwmon1" / "curr1_input"
    file.write_text("2000\n")
    assert total_watts(sensors) == pytest.approx(10.0)


def test_fans_hold_nothing_back(boards: ModuleType, tmp_path: Path) -> None:
    assert look(sensors_of(tree(boards, tmp_path / "cool"))).throttled == ()
    hot = {f"{boards.THERMAL}/cooling_device1/cur_state": "2\n"}
    assert look(sensors_of(tree(boards, tmp_path / "hot", **hot))).throttled == (
        "gpu-throttle-alert",
    )


def test_rapl_is_read_where_there_is_nothing_else(boards: ModuleType, tmp_path: Path) -> None:
    root = boards.laid_out(tmp_path, rapl())
    sensors = sensors_of(root)
    assert sensors.source == "RAPL package-0 + package-1, the processor alone"
    counted = _Counted(sensors)
    assert counted.joules() == 0.0
    set_joules(root, 0, 30.0)
    assert counted.joules() == pytest.approx(20.0)
    set_joules(root, 1, 5.0)  # it began anew at 100
    assert counted.joules() == pytest.approx(20.0 + 5.0 - 10.0 + 100.0)
    (root / "sys/class/powercap/intel-rapl:1/energy_uj").unlink()
    assert counted.joules() is None


def test_rapl_of_a_board_with_a_power_sensor_is_not_read(
    boards: ModuleType, tmp_path: Path
) -> None:
    files = boards.files_of(boards.KITS[NANO]) | rapl()
    assert sensors_of(boards.laid_out(tmp_path, files)).counters == ()


def test_rapl_for_root_alone_is_said(boards: ModuleType, tmp_path: Path) -> None:
    files = rapl()
    files["sys/class/powercap/intel-rapl:0/energy_uj"] = ""  # as if it could not be read
    found = look(sensors_of(boards.laid_out(tmp_path, files)))
    assert found.source is None
    assert found.notes == ("RAPL is there (package-0), but only root may read energy_uj",)


def test_a_machine_without_sensors_has_none(tmp_path: Path) -> None:
    sensors = sensors_of(tmp_path)
    assert not sensors.any
    assert look(sensors).watts is None


def rapl() -> dict[str, str]:
    """Two packages, and a part of one that must not count twice."""
    files = {}
    for number, name in ((0, "package-0"), (1, "package-1"), ("0:0", "core")):
        folder = f"sys/class/powercap/intel-rapl:{number}"
        files[f"{folder}/name"] = f"{name}\n"
        files[f"{folder}/energy_uj"] = "10000000\n"
        files[f"{folder}/max_energy_range_uj"] = "100000000\n"
    return files


def set_joules(root: Path, package: int, joules: float) -> None:
    file = root / f"sys/class/powercap/intel-rapl:{package}/energy_uj"
    file.write_text(f"{joules * 1e6:.0f}\n")
