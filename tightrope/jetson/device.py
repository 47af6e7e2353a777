"""What a module's GPU and memory can do in each power mode, from the tables in `devices/`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tightrope.errors import InputError
from tightrope.jetson.tables import read_families
from tightrope.state import file_slug

FP16_FLOP_PER_CLOCK = {"8.7": 2048, "11.0": 8192}
"""Dense, per SM, by compute capability: tensor cores of Ampere (Orin) and Blackwell (Thor)."""


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
    is_default: bool = False
    """Whether the board starts in it."""
    confirmed: bool = True
    """Whether NVIDIA's own tables say so; else the figures fit what is published of the module."""

    @property
    def fp16_flop_per_s(self) -> float:
        """Dense, at its highest clock."""
        per_clock = FP16_FLOP_PER_CLOCK[self.compute_capability]
        return per_clock * self.num_sms * self.gpu_max_mhz * 1e6

    @property
    def memory_bytes_per_s(self) -> float:
        return self.memory_gb_per_s * 1e9


def known_devices(*, classic: bool = False) -> tuple[Device, ...]:
    """Every module that the tables have figures for, in every power mode, slowest mode first.

    classic: as they were before "Super"; of modules that have no such modes it is the same.
    """
    return tuple(_read(classic))


def find_device(name: str, power_mode: str | None = None) -> Device:
    """The module called `name`, in any case and with any signs between; None: in its fastest mode.

    Raises InputError naming what the tables have.
    """
    known = known_devices()
    modules = [device for device in known if file_slug(device.name) == file_slug(name)]
    if not modules:
        names = ", ".join(dict.fromkeys(device.name for device in known))
        raise InputError(f"board is {name!r}; accepted: {names}")
    if power_mode is None:
        return modules[-1]
    for device in modules:
        if device.power_mode == power_mode:
            return device
    accepted = ", ".join(device.power_mode for device in modules)
    raise InputError(f"power mode is {power_mode!r}; {modules[0].name} has {accepted}")


def _read(classic: bool) -> Iterator[Device]:
    for table in read_families():
        for module in table["module"]:
            modes = module.get("power_modes", ())
            for mode in module.get("classic_power_modes", modes) if classic else modes:
                yield Device(
                    name=module["name"],
                    power_mode=mode["name"],
                    compute_capability=table["compute_capability"],
                    num_sms=mode["num_sms"],
                    gpu_max_mhz=mode["gpu_max_mhz"],
                    memory_gb_per_s=mode["memory_gb_per_s"],
                    memory_gb=module["memory_gb"],
                    is_default=mode.get("default", False),
                    confirmed=module.get("confirmed", True),
                )
