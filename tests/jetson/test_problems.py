"""What is wrong with a board is told, the most important first, with what mends it."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from tightrope.jetson.problems import Problem, problems_of
from tightrope.jetson.survey import survey

Told = Callable[..., tuple[Problem, ...]]
OPERATOR = 1000
VIDEO, RENDER = 44, 104


@pytest.fixture
def told(boards: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Told:
    """`told("Orin Nano 8GB", changes)`: what is said of such a board, to a user of both groups."""
    usage = SimpleNamespace(free=100 << 30)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)

    def tell(
        name: str,
        changes: dict[str, str | None] | None = None,
        groups: tuple[int, ...] = (OPERATOR, VIDEO, RENDER),
        python: str | None = None,
        disk_free: int = 100 << 30,
    ) -> tuple[Problem, ...]:
        kit = boards.KITS[name]
        usage.free = disk_free
        usual = "3.12.3" if kit.soc == "tegra264" else "3.10.12"
        monkeypatch.setattr(platform, "python_version", lambda: python or usual)
        place = tmp_path / str(len(list(tmp_path.iterdir())))
        root = boards.laid_out(place, boards.files_of(kit, **(changes or {})))
        return problems_of(survey(root, uid=OPERATOR, group_ids=groups))

    return tell


@pytest.mark.parametrize(
    "name",
    [
        "Orin Nano 8GB",
        "Orin Nano 4GB",
        "Orin NX 16GB",
        "Orin NX 8GB",
        "AGX Orin 32GB",
        "AGX Orin 64GB",
        "Thor T5000",
    ],
)
def test_nothing_is_wrong_with_a_board_as_it_should_be(name: str, told: Told) -> None:
    assert told(name) == ()


def test_the_mode_in_which_an_agx_starts_halves_its_gpu(told: Told, boards: ModuleType) -> None:
    for name, share in (("AGX Orin 64GB", "24%"), ("AGX Orin 32GB", "38%")):
        first, *others = told(name, {"var/lib/nvpmodel/status": "pmode:0002\n"})
        assert first.gravity == "slows" and others == []
        assert first.what == f"power mode 30W gives the GPU {share} of what MAXN gives it"
        assert first.fix.startswith("sudo nvpmodel -m 0 (MAXN")


MODES = {
    ("Orin Nano 8GB", "7W", 3): "sudo nvpmodel -m 2 (MAXN_SUPER",
    ("Orin NX 16GB", "15W", 2): "sudo nvpmodel -m 0 (MAXN_SUPER",
    ("Orin NX 8GB", "10W", 1): "sudo nvpmodel -m 0 (MAXN_SUPER",
    ("Orin Nano 4GB", "10W", 0): "sudo nvpmodel -m ",
}


@pytest.mark.parametrize("case", MODES)
def test_a_slow_power_mode_is_named_by_its_name(case: tuple[str, str, int], told: Told) -> None:
    name, mode, number = case
    first = told(name, {"var/lib/nvpmodel/status": f"pmode:{number:04}"})[0]
    assert first.what.startswith(f"power mode {mode} gives the GPU ")
    assert first.fix.startswith(MODES[case])


def meminfo(boards: ModuleType, mib: int = 7607, **fields: int) -> dict[str, str | None]:
    return {"proc/meminfo": boards.meminfo(mib, **fields)}


def test_no_contiguous_memory_is_told(told: Told, boards: ModuleType) -> None:
    first = told("Orin Nano 8GB", meminfo(boards, CmaTotal=0, CmaFree=0))[0]
    assert (first.gravity, "no memory is set aside" in first.what) == ("breaks", True)
    assert "cma=950M" in first.fix
    used = told("Orin Nano 8GB", meminfo(boards, CmaTotal=256, CmaFree=20))[0]
    assert "20 MiB of contiguous memory (CMA) are free of 256 MiB" in used.what
    assert told("AGX Orin 64GB", meminfo(boards, 62800, CmaTotal=0, CmaFree=0)) == ()


def test_a_release_that_is_strict_needs_more_of_it(told: Told, boards: ModuleType) -> None:
    strict = boards.L4T_62.replace("5.0", "4.7")
    changes = meminfo(boards, CmaTotal=256, CmaFree=240)
    assert told("Orin Nano 8GB", changes) == ()
    first = told("Orin Nano 8GB", changes | {"etc/nv_tegra_release": strict})[0]
    assert "tightened NvMap" in first.what and "36.5" in first.fix


def test_full_swap_is_told(told: Told, boards: ModuleType) -> None:
    first = told("Orin NX 8GB", meminfo(boards, SwapTotal=3800, SwapFree=12))[0]
    assert first.what.startswith("swap is full: 12 MiB free of 3800 MiB")
    assert "swapon" in first.fix
    assert told("Orin NX 8GB", meminfo(boards, SwapTotal=0, SwapFree=0)) == ()


def test_missing_groups_are_told(told: Told) -> None:
    first = told("Orin Nano 8GB", groups=(OPERATOR,))[0]
    assert first.gravity == "blocks"
    assert "not in the groups video and render" in first.what
    assert first.fix.startswith("sudo usermod -aG video,render $USER")
    assert "-aG render" in told("Orin Nano 8GB", groups=(OPERATOR, VIDEO))[0].fix
    no_render = {"etc/group": "video:x:44:\n"}
    assert told("Orin Nano 8GB", no_render, groups=(VIDEO,)) == ()


def test_root_needs_no_group(boards: ModuleType, tmp_path: Path) -> None:
    root = boards.laid_out(tmp_path, boards.files_of(boards.KITS["Orin Nano 8GB"]))
    access = survey(root, uid=0, group_ids=(0,)).access
    assert access is not None and access.is_root and access.lacks == ()


@pytest.mark.parametrize(
    ("name", "revision", "said"),
    [
        ("Orin Nano 8GB", ("R35", "4.1"), "Python 3.8 and TensorRT 8.5, which are too old"),
        ("Orin Nano 8GB", ("R36", "3.0"), "Python 3.10 and TensorRT 8.6, which are too old"),
        ("AGX Orin 64GB", ("R38", "2.0"), "(JetPack 7.0) is not made for AGX Orin 64GB"),
        ("Thor T5000", ("R36", "4.3"), "(JetPack 6.2) is not made for Thor T5000"),
    ],
)
def test_a_release_that_cannot_serve_is_told_first(
    name: str, revision: tuple[str, str], said: str, told: Told
) -> None:
    text = f"# {revision[0]} (release), REVISION: {revision[1]}, GCID: 1\n"
    first = told(name, {"etc/nv_tegra_release": text}, groups=())[0]
    assert first.gravity == "blocks" and said in first.what
    assert "SDK Manager" in first.fix


def test_releases_that_are_missing_or_unknown(told: Told) -> None:
    first = told("Orin Nano 8GB", {"etc/nv_tegra_release": None})[0]
    assert "runs no Jetson Linux" in first.what
    unknown = told("Orin Nano 8GB", {"etc/nv_tegra_release": "# R50 (release), REVISION: 1.0,"})
    assert unknown[0].gravity == "unknown" and "50.1.0" in unknown[0].what
    inside = {"etc/nv_tegra_release": None, "run/.containerenv": ""}
    assert "container" in told("Orin Nano 8GB", inside)[0].what


def test_packages_that_do_not_belong_together(told: Told) -> None:
    status = "Package: libnvinfer10\nStatus: install ok installed\nVersion: 10.13.3.9-1+cuda13.0\n"
    other = told("Orin NX 16GB", {"var/lib/dpkg/status": status})[0]
    assert "TensorRT 10.13.3.9 is installed, JetPack 6.2.2 brings 10.3" in other.what
    removed = status.replace("install ok installed", "deinstall ok config-files")
    assert told("Orin NX 16GB", {"var/lib/dpkg/status": removed})[0].what == (
        "TensorRT is not installed"
    )
    python = told("Orin NX 16GB", python="3.12.3")[0]
    assert "Python 3.12.3 runs here" in python.what and "/usr/bin/python3.10" in python.fix


def test_too_little_memory_and_disk(told: Told, boards: ModuleType) -> None:
    link = {"etc/systemd/system/default.target": "graphical.target"}
    first, last = told("Orin Nano 8GB", meminfo(boards, MemAvailable=500) | link)
    assert first.what.startswith("500 MiB of memory are available")
    assert "multi-user.target" in first.fix
    assert last.gravity == "slows" and "desktop" in last.what
    (disk,) = told("Orin Nano 8GB", disk_free=1 << 30)
    assert "1024 MiB are free on the system's disk" in disk.what


def test_a_board_that_holds_itself_back_is_told(told: Told, boards: ModuleType) -> None:
    hot = {
        f"{boards.THERMAL}/cooling_device1/cur_state": "1\n",
        f"{boards.THERMAL}/thermal_zone3/temp": "99500\n",
    }
    first = told("Orin Nano 8GB", hot)[0]
    assert first.what == "the board holds itself back now at 100 °C: gpu-throttle-alert"
    assert "--max-temp" in first.fix


def test_a_cap_below_the_power_mode_is_told(told: Told) -> None:
    first = told("Orin Nano 8GB", {"sys/class/devfreq/17000000.gpu/max_freq": "306000000"})[0]
    assert first.what == "the GPU is capped at 306 MHz, power mode 25W allows 918"
    assert first.fix == "sudo nvpmodel -m 1"


def test_a_module_of_no_table_and_a_mode_that_nobody_tells(told: Told) -> None:
    compatible = "nvidia,p3768-0000+p9999-0001\0nvidia,tegra234\0"
    first = told("Orin Nano 8GB", {"proc/device-tree/compatible": compatible})[0]
    assert "module 'p9999-0001' is in no table" in first.what
    (mode,) = told("Orin NX 16GB", {"etc/nvpmodel.conf": None})
    assert "power mode cannot be told" in mode.what and mode.fix == "sudo nvpmodel -q tells it"


def test_sensors_that_say_what_cannot_be(told: Told, boards: ModuleType) -> None:
    nonsense = {
        f"{boards.HWMON}/hwmon1/curr1_input": "-5\n",
        f"{boards.HWMON}/hwmon1/curr2_input": "1000000000\n",
        f"{boards.THERMAL}/thermal_zone0/temp": "1000000000\n",
    }
    (problem,) = told("Orin Nano 8GB", nonsense)
    assert "VDD_IN, VDD_CPU_GPU_CV, cpu" in problem.what
    off = {f"{boards.THERMAL}/thermal_zone0/temp": ""}  # as of what is switched off
    assert told("Orin Nano 8GB", off) == ()


def test_a_board_without_a_power_sensor_is_told_why(told: Told, boards: ModuleType) -> None:
    renamed = {f"{boards.HWMON}/hwmon1/in1_label": "VDD_OTHER\n"}
    (problem,) = told("Orin Nano 8GB", renamed)
    assert "no table says which rails make up the board" in problem.what


def test_the_gravest_of_several_comes_first(told: Told, boards: ModuleType) -> None:
    everything = meminfo(boards, SwapTotal=3800, SwapFree=0, CmaTotal=0, CmaFree=0)
    everything["var/lib/nvpmodel/status"] = "pmode:0003"
    everything[f"{boards.HWMON}/hwmon1/curr1_input"] = "-5\n"
    found = told("Orin Nano 8GB", everything, groups=())
    assert [problem.gravity for problem in found] == [
        "blocks",
        "breaks",
        "breaks",
        "slows",
        "unknown",
    ]
    starts = ("this user", "swap is full", "no memory is set", "power mode 7W", "sensors say")
    for problem, start in zip(found, starts, strict=True):
        assert problem.what.startswith(start)
        assert problem.fix


def test_another_machine_has_no_boards_problems(tmp_path: Path) -> None:
    found = survey(tmp_path)
    assert found.board is None and problems_of(found) == ()
    assert problems_of(replace(found, has_desktop=True)) == ()
