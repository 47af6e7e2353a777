"""What is read of boards: modules, modes, clocks, memory, software."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from tightrope.jetson.clocks import read_clocks
from tightrope.jetson.nvpmodel import PowerMode, parse_power_modes, read_power_modes
from tightrope.jetson.probe import largest_free_bytes
from tightrope.jetson.software import parse_packages
from tightrope.jetson.survey import survey

KITS = (
    "Orin Nano 8GB",
    "Orin Nano 4GB",
    "Orin NX 16GB",
    "Orin NX 8GB",
    "AGX Orin 32GB",
    "AGX Orin 64GB",
    "Thor T5000",
)


@pytest.mark.parametrize("name", KITS)
def test_every_board_is_told_in_full(name: str, boards: ModuleType, tmp_path: Path) -> None:
    kit = boards.KITS[name]
    found = survey(boards.laid_out(tmp_path, boards.files_of(kit)), uid=1000, group_ids=(44, 104))
    board, clocks, machine = found.board, found.clocks, found.machine
    assert board is not None and clocks is not None
    assert board.module is not None and board.module.name == name
    assert board.power_mode is not None
    assert board.power_mode.name == kit.modes[kit.mode].name
    assert board.power_modes.names == tuple(mode.name for mode in kit.modes)
    sms = {"Orin Nano 4GB": 4, "AGX Orin 32GB": 14, "AGX Orin 64GB": 16, "Thor T5000": 20}
    assert clocks.active_sms == sms.get(name, 8)
    assert clocks.gpu_mhz == 306
    assert clocks.cpu_cores == kit.modes[kit.mode].cores
    assert machine.cma_free_bytes == 900 << 20 and machine.swap_free_bytes == 3800 << 20
    assert machine.largest_free_bytes == 4 << 20
    assert found.software is not None
    assert found.software.cuda == kit.cuda
    assert found.software.tensorrt == kit.tensorrt.partition(":")[2].partition("-")[0]
    expected = {"Thor T5000": 19.78}.get(name, 6.0)
    if name.startswith("AGX"):
        expected = 5 * (1.2 + 0.334 + 0.462)
    assert found.sensors.watts == pytest.approx(expected)
    assert found.sensors.hottest_c == pytest.approx(max(kit.zones.values()) / 1e3)


def test_a_table_says_what_each_mode_allows(boards: ModuleType) -> None:
    text = boards.nvpmodel(boards.NANO8_MODES, 1)
    modes, default = parse_power_modes(text)
    assert default == 1
    assert modes[3] == PowerMode(
        id=3,
        name="7W",
        cpu_cores=4,
        cpu_max_mhz=960,
        gpu_max_mhz=408,
        emc_max_mhz=2133,
        tpc_mask=252,
    )
    most = modes[2]
    assert (most.name, most.gpu_max_mhz, most.emc_max_mhz) == ("MAXN_SUPER", None, None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# < POWER_MODEL ID=0 NAME=X >",
        "< POWER_MODEL ID=x NAME=15W >",
        "GPU MAX_FREQ 612000000\n< PM_CONFIG DEFAULT=one >",
        "< POWER_MODEL",
        "\0\xff",
    ],
)
def test_what_is_no_table_has_no_modes(text: str) -> None:
    assert parse_power_modes(text) == ((), None)


def test_a_mode_keeps_what_of_it_can_be_read() -> None:
    text = "< POWER_MODEL ID=0 NAME=A >\nGPU MAX_FREQ fast\nEMC MAX_FREQ 3199000000\nCPU_ONLINE"
    (mode,), _ = parse_power_modes(text)
    assert (mode.gpu_max_mhz, mode.emc_max_mhz, mode.cpu_cores) == (None, 3199, None)


def test_a_choice_that_the_table_does_not_have_is_no_mode(
    boards: ModuleType, tmp_path: Path
) -> None:
    status = {"var/lib/nvpmodel/status": "pmode:0009"}
    kit = boards.KITS["Orin Nano 8GB"]
    modes = read_power_modes(boards.laid_out(tmp_path, boards.files_of(kit, **status)))
    assert modes.current is None
    assert modes.default is not None and modes.default.name == "25W"


@pytest.mark.parametrize("text", ["0-3,x", "", "3-1-2"])
def test_cores_that_are_told_badly_are_unknown(text: str, tmp_path: Path) -> None:
    file = tmp_path / "sys/devices/system/cpu/online"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    assert read_clocks(tmp_path, 8).cpu_cores is None
    file.write_text("0-3,6\n")
    assert read_clocks(tmp_path, 8).cpu_cores == 5


def test_the_gpus_clock_is_found_where_each_release_has_it(tmp_path: Path) -> None:
    old = tmp_path / "sys/devices/17000000.ga10b/devfreq/17000000.ga10b"
    old.mkdir(parents=True)
    (old / "cur_freq").write_text("510000000\n")
    assert read_clocks(tmp_path, 8).gpu_mhz == 510
    new = tmp_path / "sys/class/devfreq"
    for name, rate in (("gpu-nvd-0", 900), ("gpu-gpc-0", 1575)):
        (new / name).mkdir(parents=True)
        (new / name / "cur_freq").write_text(f"{rate}000000\n")
    assert read_clocks(tmp_path, 10).gpu_mhz == 1575


def test_the_largest_free_piece() -> None:
    assert largest_free_bytes("") is None
    assert largest_free_bytes("Node 0, zone Normal 0 0 0\n") is None
    assert largest_free_bytes("Node 0, zone DMA 1 0 3\nNode 0, zone Normal 9 0 0\n") == 4096 * 4
    assert largest_free_bytes("garbage\nNode 0, zone Normal x 2\n") == 8192


def test_packages_that_are_not_installed_any_more_do_not_count() -> None:
    text = (
        "Package: libnvinfer8\nStatus: deinstall ok config-files\nVersion: 8.6\n\n"
        "Package: libnvinfer10\nStatus: install ok installed\nVersion: 10.3.0\n"
    )
    assert parse_packages(text) == {"libnvinfer10": "10.3.0"}


def test_damaged_version_files_are_no_error(boards: ModuleType, tmp_path: Path) -> None:
    broken = {"usr/local/cuda/version.json": "{", "var/lib/dpkg/status": "\0\0"}
    root = boards.laid_out(tmp_path, boards.files_of(boards.KITS["Orin NX 16GB"], **broken))
    software = survey(root).software
    assert software is not None and (software.cuda, software.tensorrt) == (None, None)
