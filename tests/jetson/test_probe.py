"""The probe on recorded file systems: an Orin Nano with JetPack 6.2, a Thor with JetPack 7."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tightrope.jetson import probe

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ORIN_NANO = {
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0",
    "proc/device-tree/compatible": (
        "nvidia,p3768-0000+p3767-0005-super\0nvidia,p3767-0005\0nvidia,tegra234\0"
    ),
    "proc/meminfo": (
        "MemTotal:        7789896 kB\n"
        "MemFree:         5123456 kB\n"
        "MemAvailable:    6912340 kB\n"
        "HugePages_Total:       0\n"
        "CmaTotal:         262144 kB\n"
        "CmaFree:          240128 kB\n"
    ),
    "proc/cpuinfo": "processor\t: 0\nBogoMIPS\t: 62.50\nCPU part\t: 0xd42\n",
    "etc/nv_tegra_release": (
        "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, "
        "DATE: Wed Jan  8 01:49:37 UTC 2025\n"
        "# KERNEL_VARIANT: oot\n"
        "TARGET_USERSPACE_LIB_DIR=nvidia\n"
    ),
    "etc/os-release": 'NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 22.04.5 LTS"\n',
    "etc/nvpmodel.conf": (
        "# < POWER_MODEL ID=id_num NAME=mode_name >\n"
        "# < PM_CONFIG DEFAULT=default_mode >\n"
        "< PARAM TYPE=FILE NAME=CPU_ONLINE >\n"
        "CORE_0 /sys/devices/system/cpu/cpu0/online\n"
        "< POWER_MODEL ID=0 NAME=15W >\n"
        "CPU_ONLINE CORE_0 1\n"
        "GPU MAX_FREQ 612000000\n"
        "< POWER_MODEL ID=1 NAME=25W >\n"
        "GPU MAX_FREQ 918000000\n"
        "< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n"
        "GPU MAX_FREQ -1\n"
        "< PM_CONFIG DEFAULT=1 >\n"
    ),
    "var/lib/nvpmodel/status": "pmode:0002 fmode:fan_mode_quiet\n",
}
THOR = {
    "proc/device-tree/model": "NVIDIA Jetson AGX Thor Developer Kit\0",
    "proc/device-tree/compatible": (
        "nvidia,p4071-0000+p3834-0008\0nvidia,p3834-0008\0nvidia,tegra264\0"
    ),
    "proc/meminfo": "MemTotal:       128790528 kB\nMemAvailable:   124000000 kB\n",
    "proc/cpuinfo": "processor\t: 0\nCPU part\t: 0xd83\n",
    "etc/nv_tegra_release": (
        "# R38 (release), REVISION: 2.0, GCID: 41844464, BOARD: generic, EABI: aarch64, "
        "DATE: Fri Aug 22 00:55:42 UTC 2025\n"
    ),
    "etc/os-release": 'PRETTY_NAME="Ubuntu 24.04.3 LTS"\n',
}


def laid_out(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return root


def test_an_orin_nano_is_recognised(tmp_path: Path) -> None:
    board = probe.read_board(laid_out(tmp_path, ORIN_NANO))
    assert board is not None
    assert board.model == "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"
    assert board.module_id == "p3767-0005"
    assert board.module is not None
    assert (board.module.name, board.module.num_sms) == ("Orin Nano 8GB", 8)
    assert board.l4t == "36.4.3"
    assert board.jetpack is not None
    assert (board.jetpack.jetpack, board.jetpack.tensorrt) == ("6.2", "10.3")


def test_a_thor_is_recognised(tmp_path: Path) -> None:
    board = probe.read_board(laid_out(tmp_path, THOR))
    assert board is not None
    assert board.module is not None
    assert (board.module.family, board.module.compute_capability) == ("Jetson Thor", "11.0")
    assert (board.l4t, board.jetpack and board.jetpack.jetpack) == ("38.2.0", "7.0")
    assert board.power_mode is None


def test_memory_and_processor_are_read(tmp_path: Path) -> None:
    machine = probe.read_machine(laid_out(tmp_path, ORIN_NANO))
    assert machine.system == "Ubuntu 22.04.5 LTS"
    assert machine.cpu == "ARM Cortex-A78AE"
    assert machine.memory_bytes == 7789896 * 1024
    assert machine.memory_available_bytes == 6912340 * 1024
    assert (machine.cma_bytes, machine.cma_free_bytes) == (262144 * 1024, 240128 * 1024)


def test_a_machine_without_any_of_these_files_is_no_board_and_no_error(tmp_path: Path) -> None:
    assert probe.read_board(tmp_path) is None
    machine = probe.read_machine(tmp_path)
    assert machine.memory_bytes is None
    assert machine.num_cores >= 1


def test_the_power_mode_is_the_one_last_chosen(tmp_path: Path) -> None:
    board = probe.read_board(laid_out(tmp_path, ORIN_NANO))
    assert board is not None and board.power_mode is not None
    assert (board.power_mode.id, board.power_mode.name) == (2, "MAXN_SUPER")
    assert board.power_modes.names == ("15W", "25W", "MAXN_SUPER")
    assert board.is_super


def test_without_a_choice_the_power_mode_is_the_configured_default(tmp_path: Path) -> None:
    laid_out(tmp_path, ORIN_NANO)
    (tmp_path / "var/lib/nvpmodel/status").unlink()
    board = probe.read_board(tmp_path)
    assert board is not None and board.power_mode is not None
    assert board.power_mode.name == "25W"


@pytest.mark.parametrize(
    ("l4t", "jetpack"),
    [
        ("35.4.1", "5"),
        ("36.4.0", "6.1"),
        ("36.4.3", "6.2"),
        ("36.4.7", "6.2.1"),
        ("36.5.0", "6.2.2"),
        ("38.2.2", "7.0"),
        ("38.4", "7.1"),
        ("39.2.1", "7.2.1"),
    ],
)
def test_a_release_belongs_to_its_jetpack(l4t: str, jetpack: str) -> None:
    found = probe.find_jetpack(l4t)
    assert found is not None
    assert found.jetpack == jetpack


@pytest.mark.parametrize("l4t", ["36.4.9", "36.40", "40.1"])
def test_a_release_without_a_row_is_unknown_rather_than_guessed(l4t: str) -> None:
    assert probe.find_jetpack(l4t) is None


@pytest.mark.parametrize(
    ("compatible", "module_id"),
    [
        (["nvidia,p3737-0000+p3701-0005", "nvidia,tegra234"], "p3701-0005"),
        (["vendor,carrier", "nvidia,p3767-0001", "nvidia,tegra234"], "p3767-0001"),
        (["nvidia,tegra234"], None),
    ],
)
def test_the_module_is_told_apart_from_its_carrier(
    compatible: list[str], module_id: str | None
) -> None:
    assert probe.parse_module_id(compatible) == module_id


def test_a_module_without_a_table_is_still_a_board(tmp_path: Path) -> None:
    laid_out(tmp_path, THOR | {"proc/device-tree/compatible": "nvidia,p9999-0000\0nvidia,tegra9\0"})
    board = probe.read_board(tmp_path)
    assert board is not None
    assert (board.module_id, board.module) == ("p9999-0000", None)


def test_every_module_of_every_table_can_be_found_by_each_of_its_ids() -> None:
    devices = Path(probe.__file__).parent / "devices"
    tables = [tomllib.loads(file.read_text(encoding="utf-8")) for file in devices.glob("*.toml")]
    assert len(tables) >= 4
    ids = [key for table in tables for row in table["module"] for key in row["ids"]]
    assert len(ids) == len(set(ids))
    assert all(probe.find_module(key) is not None for key in ids)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("flags\t\t: fpu avx2 avx512_vnni", "avx512_vnni"),
        ("flags\t\t: fpu avx2 avx_vnni", "avx_vnni"),
        ("Features\t: fp asimd asimddp", "asimddp"),
        ("flags\t\t: fpu avx2 avx512f", None),
        ("CPU part\t: 0xd42", None),
    ],
)
def test_the_kernel_says_whether_products_of_int8_are_exact(
    line: str, found: str | None, tmp_path: Path
) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text(f"processor\t: 0\n{line}\n", encoding="utf-8")
    assert probe.int8_products(probe.read_cpu_flags(tmp_path)) == found
