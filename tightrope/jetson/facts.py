"""What planning and building for a board goes by: read off this machine, or of a board by name."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path

from tightrope.errors import DeviceUnavailable
from tightrope.jetson.device import Device, find_device, known_devices
from tightrope.jetson.probe import ROOT, Board, read_board, read_machine

_USABLE = 0.85
"""Of a board's memory, once the system without a desktop has its share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardFacts:
    """A board as engines depend on it, and the memory that it has left."""

    name: str
    compute_capability: str
    tensorrt: str
    """Installed, or that of the board's newest JetPack; "unknown" where nobody says."""
    memory_available_bytes: int | None
    cma_bytes: int | None = None
    cma_free_bytes: int | None = None
    l4t: str | None = None
    is_here: bool = True
    """Whether it is this machine; of another one it is what its data sheet says."""
    device: Device | None = None
    """Its rates; None where the tables have none, and nothing can be predicted."""
    source: str = "read on this machine"


def facts_here(tensorrt: str, root: Path = ROOT) -> BoardFacts:
    """This machine; raises DeviceUnavailable where it has neither a known module nor a GPU."""
    board, machine = read_board(root), read_machine(root)
    capability = gpu_capability()
    if capability is None and board is not None and board.module is not None:
        capability = board.module.compute_capability
    if capability is None:
        raise DeviceUnavailable(
            "the CUDA driver offers no GPU, and this is no Jetson that is known; engines are built "
            "on the board that runs them"
        )
    return BoardFacts(
        name=_name(board) or machine.cpu,
        compute_capability=capability,
        tensorrt=tensorrt,
        memory_available_bytes=machine.memory_available_bytes,
        cma_bytes=machine.cma_bytes,
        cma_free_bytes=machine.cma_free_bytes,
        l4t=None if board is None else board.l4t,
        device=_device(board),
    )


def facts_of(name: str, power_mode: str | None = None) -> BoardFacts:
    """The board called `name`, from the tables; raises InputError naming those that they have."""
    device = find_device(name, power_mode)
    return BoardFacts(
        name=device.name,
        compute_capability=device.compute_capability,
        tensorrt="unknown",
        memory_available_bytes=int(device.memory_gb * 1e9 * _USABLE),
        is_here=False,
        device=device,
        source=f"{_USABLE:.0%} of the {device.memory_gb} GB of its data sheet",
    )


def gpu_capability() -> str | None:
    """Compute capability of the first GPU, such as 8.7; None where the driver offers none."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device, parts = ctypes.c_int(0), []
    if driver.cuInit(0) != 0 or driver.cuDeviceGet(ctypes.byref(device), 0) != 0:
        return None
    for attribute in _CAPABILITY:
        part = ctypes.c_int(0)
        if driver.cuDeviceGetAttribute(ctypes.byref(part), attribute, device) != 0:
            return None
        parts.append(part.value)
    return f"{parts[0]}.{parts[1]}"


_CAPABILITY = (75, 76)
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR, as cuda.h numbers them for good."""


def _name(board: Board | None) -> str | None:
    if board is None:
        return None
    return board.module.name if board.module else board.module_id or board.model


def _device(board: Board | None) -> Device | None:
    """In the power mode in force, where the tables have it; else in its fastest."""
    if board is None or board.module is None:
        return None
    known = [device for device in known_devices() if device.name == board.module.name]
    mode = None if board.power_mode is None else board.power_mode.name
    return next((device for device in known if device.power_mode == mode), None) or (
        known[-1] if known else None
    )
