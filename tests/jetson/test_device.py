"""Every board and power mode that NVIDIA's tables have, with what they allow."""

from __future__ import annotations

import pytest

from tightrope.jetson.device import find_device, known_devices

SUPER = {
    "Orin Nano 8GB": {"7W": 3.3, "15W": 10.0, "25W": 15.0, "MAXN_SUPER": 16.7},
    "Orin Nano 4GB": {"7W_CPU": 2.5, "7W_AI": 3.3, "10W": 5.0, "25W": 8.4, "MAXN_SUPER": 8.4},
    "Orin NX 16GB": {
        "10W": 5.0,
        "15W": 5.0,
        "25W": 6.7,
        "MAXN": 15.0,
        "40W": 19.2,
        "MAXN_SUPER": 19.2,
    },
    "Orin NX 8GB": {
        "10W": 5.0,
        "15W": 5.0,
        "20W": 6.7,
        "MAXN": 12.5,
        "40W": 19.2,
        "MAXN_SUPER": 19.2,
    },
    "AGX Orin 32GB": {"15W": 5.0, "30W": 10.0, "40W": 23.4, "MAXN": 26.7},
    "AGX Orin 64GB": {"15W": 5.0, "30W": 10.0, "50W": 26.7, "MAXN": 42.6},
    "Thor T5000": {"MAXN": 258.0},
    "Thor T4000": {"MAXN": 150.0},
}
CLASSIC = {
    "Orin Nano 8GB": {"7W": 3.3, "15W": 10.2},
    "Orin Nano 4GB": {"7W_CPU": 2.5, "7W_AI": 3.3, "10W": 5.1},
    "Orin NX 16GB": {"10W": 5.0, "15W": 5.0, "25W": 6.7, "MAXN": 15.0},
    "Orin NX 8GB": {"10W": 5.0, "15W": 5.0, "20W": 6.7, "MAXN": 12.5},
}
DEFAULTS = {
    "Orin Nano 8GB": ("25W", "15W"),
    "Orin Nano 4GB": ("25W", "10W"),
    "Orin NX 16GB": ("40W", "15W"),
    "Orin NX 8GB": ("40W", "15W"),
    "AGX Orin 32GB": ("30W", "30W"),
    "AGX Orin 64GB": ("30W", "30W"),
}


@pytest.mark.parametrize("name", SUPER)
@pytest.mark.parametrize("classic", [False, True])
def test_each_mode_multiplies_as_published(name: str, classic: bool) -> None:
    """TFLOPS in float16, dense, to their last digit."""
    expected = CLASSIC.get(name, SUPER[name]) if classic else SUPER[name]
    found = [device for device in known_devices(classic=classic) if device.name == name]
    assert [device.power_mode for device in found] == list(expected)
    for device in found:
        teraflops = device.fp16_flop_per_s / 1e12
        assert teraflops == pytest.approx(
            expected[device.power_mode], abs=0.6 if teraflops > 99 else 0.06
        )


@pytest.mark.parametrize("name", DEFAULTS)
def test_each_board_starts_in_one_mode(name: str) -> None:
    for classic, mode in zip((False, True), DEFAULTS[name], strict=True):
        found = known_devices(classic=classic)
        starts = [each.power_mode for each in found if each.name == name and each.is_default]
        assert starts == [mode]


def test_what_no_table_of_nvidias_confirms_says_so() -> None:
    unsure = {device.name for device in known_devices() if not device.confirmed}
    assert unsure == {"Thor T5000", "Thor T4000"}
    assert find_device("orin-nx-8gb").confirmed
