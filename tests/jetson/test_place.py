"""What measurements are filed under, read from recorded files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tightrope.jetson.place import board_and_mode

FILES = {
    "proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0005-super\0nvidia,tegra234\0",
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.7, GCID: 1, BOARD: generic\n",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=1 NAME=25W >\n"
    "< PM_CONFIG DEFAULT=1 >\n",
}


def laid_out(root: Path, **changes: str | None) -> Path:
    for name, text in {**FILES, **changes}.items():
        if text is not None:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text, encoding="utf-8")
    return root


def test_a_board_is_its_module_and_the_mode_in_force(tmp_path: Path) -> None:
    assert board_and_mode(laid_out(tmp_path)) == ("Orin Nano 8GB", "25W")
    status = tmp_path / "var/lib/nvpmodel/status"
    status.parent.mkdir(parents=True)
    status.write_text("pmode:0000", encoding="utf-8")
    assert board_and_mode(tmp_path) == ("Orin Nano 8GB", "15W")


@pytest.mark.parametrize(
    ("compatible", "board"),
    [
        ("nvidia,p3768-0000+p9999-0001\0nvidia,tegra234\0", "p9999-0001"),
        ("nvidia,tegra234\0", "NVIDIA Jetson Orin Nano Developer Kit"),
    ],
)
def test_an_unknown_module_goes_by_what_is_known_of_it(
    tmp_path: Path, compatible: str, board: str
) -> None:
    changes = {"proc/device-tree/compatible": compatible, "etc/nvpmodel.conf": None}
    assert board_and_mode(laid_out(tmp_path, **changes)) == (board, "unknown")


def test_another_machine_is_its_processor(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "proc/cpuinfo"
    cpuinfo.parent.mkdir(parents=True)
    cpuinfo.write_text("model name\t: AMD EPYC 7763\n", encoding="utf-8")
    assert board_and_mode(tmp_path) == ("AMD EPYC 7763", "none")
