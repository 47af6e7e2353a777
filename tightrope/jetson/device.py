"""What a module's GPU and memory can do in each power mode, from the tables in `devices/`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources

from tightrope.errors import InputError
from tightrope.state import file_slug

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FP16_FLOP_PER_CLOCK = {"8.7": 2048}
"""Dense, per SM, by compute capability: Ampere's tensor cores of Orin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A module in one power mode."""

    name: str
    power_mode: str
    compute_capability: str
    num_sms: int
    gpu_max_mhz: int
    memory_gb_per_s: int
    memory_gb: int

    @property
    def fp16_flop_per_s(self) -> float:
        """Dense, at its highest clock."""
        per_clock = FP16_FLOP_PER_CLOCK[self.compute_capability]
        return per_clock * self.num_sms * self.gpu_max_mhz * 1e6

    @property
    def memory_bytes_per_s(self) -> float:
        return self.memory_gb_per_s * 1e9


def known_devices() -> tuple[Device, ...]:
    """Every module that the tables have figures for, in every power mode, slowest mode first."""
    return tuple(_read())


def find_device(name: str, power_mode: str | None = None) -> Device:
    """The module called `name`, in any case and with any signs between; None: in its fastest mode.

    Raises InputError naming what the tables have.
    """
    modules = [device for device in known_devices() if file_slug(device.name) == file_slug(name)]
    if not modules:
        known = ", ".join(dict.fromkeys(device.name for device in known_devices()))
        raise InputError(f"board is {name!r}; accepted: {known}")
    if power_mode is None:
        return modules[-1]
    for device in modules:
        if device.power_mode == power_mode:
            return device
    accepted = ", ".join(device.power_mode for device in modules)
    raise InputError(f"power mode is {power_mode!r}; {modules[0].name} has {accepted}")


def _read() -> Iterator[Device]:
    folder = resources.files("tightrope.jetson").joinpath("devices")
    for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if not file.name.endswith(".toml"):
            continue
        table = tomllib.loads(file.read_text(encoding="utf-8"))
        for module in table["module"]:
            for mode in module.get("power_modes", ()):
                yield Device(
                    name=module["name"],
                    power_mode=mode["name"],
                    compute_capability=table["compute_capability"],
                    num_sms=mode["num_sms"],
                    gpu_max_mhz=mode["gpu_max_mhz"],
                    memory_gb_per_s=mode["memory_gb_per_s"],
                    memory_gb=module["memory_gb"],
                )
