"""What machine and board this is, read from files alone.

Every function takes the root of the file system, so that tests hand in a recorded one; nothing is
executed, no root rights are needed, and a file that is not there is an absent value, not an error.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from tightrope.jetson.files import line_of, text_of
from tightrope.jetson.nvpmodel import PowerMode, PowerModes, read_power_modes
from tightrope.jetson.tables import Table, read_families, read_releases

ROOT = Path("/")
INT8_EXTENSIONS = ("avx512_vnni", "avx_vnni", "asimddp")
"""Without them older instructions of x86 saturate, and sums of products are wrong."""
INT8_TILES = "amx_int8"
"""Matrix units that multiply int8 several times as fast as anything else."""
PAGE_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The computer, board or not."""

    system: str
    kernel: str
    architecture: str
    cpu: str
    num_cores: int
    """Cores that this process may use."""
    python: str
    memory_bytes: int | None
    memory_available_bytes: int | None
    """What programs can still get: page cache that can be dropped counts as available."""
    cma_bytes: int | None
    cma_free_bytes: int | None
    """Contiguous memory left; a large engine build on an 8 GB board fails for want of it."""
    largest_free_bytes: int | None
    """The largest piece of contiguous memory that is free, CMA or not."""
    swap_bytes: int | None
    swap_free_bytes: int | None
    disk_free_bytes: int | None
    """Where the system's own files lie."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """A Jetson module as it is sold; figures that no source confirms are None."""

    name: str
    family: str
    compute_capability: str
    num_tpcs: int
    """Pairs of SMs that the chip has; a module or a power mode may have some of them off."""
    memory_gb: int | None = None
    num_sms: int | None = None
    gpu_max_mhz: int | None = None
    gpu_max_mhz_super: int | None = None
    memory_gb_per_s: int | None = None
    memory_gb_per_s_super: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JetPack:
    """The software that belongs to a Jetson Linux release."""

    jetpack: str
    python: str
    cuda: str
    tensorrt: str
    compute_capabilities: tuple[str, ...]
    """Of the modules that it is made for."""
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """A Jetson board: what its device tree and its release file say."""

    model: str
    module_id: str | None
    module: Module | None
    """None where the id has no entry in `devices/`."""
    is_super: bool
    """Whether it was set up with the power modes of "Super"."""
    l4t: str | None
    jetpack: JetPack | None
    power_modes: PowerModes

    @property
    def power_mode(self) -> PowerMode | None:
        """The one in force."""
        return self.power_modes.current


def read_machine(root: Path = ROOT) -> Machine:
    """The machine under `root`; cores, architecture and Python are the running process's."""
    memory = read_meminfo(root)
    return Machine(
        system=_os_name(root),
        kernel=platform.release(),
        architecture=platform.machine(),
        cpu=_cpu_name(root),
        num_cores=num_cores(),
        python=platform.python_version(),
        memory_bytes=memory.get("MemTotal"),
        memory_available_bytes=memory.get("MemAvailable"),
        cma_bytes=memory.get("CmaTotal"),
        cma_free_bytes=memory.get("CmaFree"),
        largest_free_bytes=largest_free_bytes(text_of(root / "proc/buddyinfo") or ""),
        swap_bytes=memory.get("SwapTotal"),
        swap_free_bytes=memory.get("SwapFree"),
        disk_free_bytes=_disk_free(root),
    )


def read_board(root: Path = ROOT) -> Board | None:
    """The Jetson board under `root`, or None where this is no Jetson."""
    compatible = (text_of(root / "proc/device-tree/compatible") or "").split("\0")
    l4t = parse_l4t_release(text_of(root / "etc/nv_tegra_release") or "")
    if l4t is None and not any(entry.startswith("nvidia,tegra") for entry in compatible):
        return None
    module_id = parse_module_id(compatible)
    return Board(
        model=line_of(root / "proc/device-tree/model") or "unknown",
        module_id=module_id,
        module=find_module(module_id) if module_id else None,
        is_super=any(entry.endswith("-super") for entry in compatible),
        l4t=l4t,
        jetpack=find_jetpack(l4t) if l4t else None,
        power_modes=read_power_modes(root),
    )


def read_meminfo(root: Path = ROOT) -> dict[str, int]:
    """The fields of /proc/meminfo, in bytes."""
    fields = re.findall(r"^(\w+):\s+(\d+) kB", text_of(root / "proc/meminfo") or "", re.MULTILINE)
    return {name: int(kibibytes) * 1024 for name, kibibytes in fields}


def read_cpu_flags(root: Path = ROOT) -> frozenset[str]:
    """What the kernel calls the processor's extensions, such as avx512_vnni or asimddp."""
    text = text_of(root / "proc/cpuinfo") or ""
    found = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    return frozenset(found[1].split()) if found else frozenset()


def int8_products(flags: Collection[str]) -> str | None:
    """The extension that sums products of int8 exactly and fast; None where there is none."""
    return next((name for name in INT8_EXTENSIONS if name in flags), None)


def largest_free_bytes(buddyinfo: str) -> int | None:
    """From the text of /proc/buddyinfo: free pieces of 1, 2, 4, ... pages, a line a zone."""
    largest = None
    for line in buddyinfo.splitlines():
        for order, count in enumerate(line.partition("zone")[2].split()[1:]):
            if count.isdecimal() and int(count) > 0:
                largest = max(largest or 0, PAGE_BYTES << order)
    return largest


def parse_l4t_release(text: str) -> str | None:
    """ "36.4.7" from "# R36 (release), REVISION: 4.7, ...", the text of nv_tegra_release."""
    found = re.search(r"R(\d+) \(release\), REVISION: (\d+(?:\.\d+)*)", text)
    return f"{found[1]}.{found[2]}" if found else None


def parse_module_id(compatible: list[str]) -> str | None:
    """ "p3767-0005" from the device tree's `compatible` entries.

    The first entry names carrier and module, as in nvidia,p3768-0000+p3767-0005-super.
    """
    for entry in compatible:
        if found := re.search(r"(?:\+|^nvidia,)(p\d{4}-\d{4})(?:-super)?$", entry):
            return found[1]
    return None


def find_module(module_id: str) -> Module | None:
    """The module with this id, from the tables in `devices/`."""
    for table in read_families():
        for row in table["module"]:
            if module_id in row.get("ids", ()):
                return _module(table, row)
    return None


def _module(table: Table, row: Table) -> Module:
    figures = {name: row[name] for name in Module.__slots__ if name in row}
    family = {name: table[name] for name in ("family", "compute_capability", "num_tpcs")}
    return Module(**family, **figures)


def find_jetpack(l4t: str) -> JetPack | None:
    """The JetPack of this Jetson Linux release, or None where no table row speaks for it."""
    fitting = [row for row in read_releases() if f"{l4t}.".startswith(f"{row['l4t']}.")]
    if not fitting:
        return None
    figures = dict(max(fitting, key=lambda row: len(row["l4t"])))
    del figures["l4t"]
    return JetPack(**figures | {"compute_capabilities": tuple(figures["compute_capabilities"])})


def num_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _disk_free(root: Path) -> int | None:
    try:
        return shutil.disk_usage(root).free
    except OSError:
        return None


def _os_name(root: Path) -> str:
    text = text_of(root / "etc/os-release") or ""
    name = re.search(r'^PRETTY_NAME="?([^"\n]*)', text, re.MULTILINE)
    return name[1] if name else platform.system()


def _cpu_name(root: Path) -> str:
    text = text_of(root / "proc/cpuinfo") or ""
    name = re.search(r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", text, re.MULTILINE)
    if name:
        return name[1].strip()
    part = re.search(r"^CPU part\s*:\s*(\S+)$", text, re.MULTILINE)
    return _ARM_PARTS.get(part[1], f"ARM part {part[1]}") if part else platform.machine()


_ARM_PARTS = {"0xd42": "ARM Cortex-A78AE", "0xd83": "ARM Neoverse-V3AE"}
