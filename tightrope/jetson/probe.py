"""What machine and board this is, read from files alone.

Every function takes the root of the file system, so that tests hand in a recorded one; nothing is
executed, no root rights are needed, and a file that is not there is an absent value, not an error.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Collection
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path("/")
INT8_EXTENSIONS = ("avx512_vnni", "avx_vnni", "asimddp")
"""Without them older instructions of x86 saturate, and sums of products are wrong."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """A Jetson module as it is sold; figures that no source confirms are None."""

    name: str
    family: str
    compute_capability: str
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
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerMode:
    """The nvpmodel mode in force. Ids differ from board to board: compare names."""

    id: int
    name: str
    accepted: tuple[str, ...]
    """Names of all modes of this board, by id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """A Jetson board: what its device tree and its release file say."""

    model: str
    module_id: str | None
    module: Module | None
    """None where the id has no entry in `devices/`."""
    l4t: str | None
    jetpack: JetPack | None
    power_mode: PowerMode | None


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
    )


def read_board(root: Path = ROOT) -> Board | None:
    """The Jetson board under `root`, or None where this is no Jetson."""
    compatible = (_read(root / "proc/device-tree/compatible") or "").split("\0")
    l4t = parse_l4t_release(_read(root / "etc/nv_tegra_release") or "")
    if l4t is None and not any(entry.startswith("nvidia,tegra") for entry in compatible):
        return None
    module_id = parse_module_id(compatible)
    return Board(
        model=(_read(root / "proc/device-tree/model") or "unknown").rstrip("\0\n"),
        module_id=module_id,
        module=find_module(module_id) if module_id else None,
        l4t=l4t,
        jetpack=find_jetpack(l4t) if l4t else None,
        power_mode=read_power_mode(root),
    )


def read_meminfo(root: Path = ROOT) -> dict[str, int]:
    """The fields of /proc/meminfo, in bytes."""
    fields = re.findall(r"^(\w+):\s+(\d+) kB", _read(root / "proc/meminfo") or "", re.MULTILINE)
    return {name: int(kibibytes) * 1024 for name, kibibytes in fields}


def read_cpu_flags(root: Path = ROOT) -> frozenset[str]:
    """What the kernel calls the processor's extensions, such as avx512_vnni or asimddp."""
    text = _read(root / "proc/cpuinfo") or ""
    found = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    return frozenset(found[1].split()) if found else frozenset()


def int8_products(flags: Collection[str]) -> str | None:
    """The extension that sums products of int8 exactly and fast; None where there is none."""
    return next((name for name in INT8_EXTENSIONS if name in flags), None)


def read_power_mode(root: Path = ROOT) -> PowerMode | None:
    """The nvpmodel mode in force: the one last chosen, else the configured default."""
    names, default = parse_power_modes(_read(root / "etc/nvpmodel.conf") or "")
    chosen = re.search(r"pmode:(\d+)", _read(root / "var/lib/nvpmodel/status") or "")
    mode = int(chosen[1]) if chosen else default
    if mode is None or mode not in names:
        return None
    return PowerMode(id=mode, name=names[mode], accepted=tuple(names[key] for key in sorted(names)))


def parse_power_modes(text: str) -> tuple[dict[int, str], int | None]:
    """Names by id and the default id, from the text of nvpmodel.conf."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    modes = re.findall(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=([^\s>]+)\s*>", lines)
    default = re.search(r"<\s*PM_CONFIG\s+DEFAULT=(\d+)\s*>", lines)
    return {int(key): name for key, name in modes}, int(default[1]) if default else None


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
    for file in resources.files("tightrope.jetson").joinpath("devices").iterdir():
        if not file.name.endswith(".toml"):
            continue
        table = tomllib.loads(file.read_text(encoding="utf-8"))
        for row in table["module"]:
            row.pop("power_modes", None)
            if module_id in row.pop("ids"):
                return Module(
                    family=table["family"], compute_capability=table["compute_capability"], **row
                )
    return None


def find_jetpack(l4t: str) -> JetPack | None:
    """The JetPack of this Jetson Linux release, or None where no table row speaks for it."""
    table = resources.files("tightrope.jetson").joinpath("jetpacks.toml")
    rows = tomllib.loads(table.read_text(encoding="utf-8"))["release"]
    fitting = [row for row in rows if f"{l4t}.".startswith(f"{row['l4t']}.")]
    if not fitting:
        return None
    row = max(fitting, key=lambda row: len(row["l4t"]))
    return JetPack(**{key: value for key, value in row.items() if key != "l4t"})


def num_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _os_name(root: Path) -> str:
    text = _read(root / "etc/os-release") or ""
    name = re.search(r'^PRETTY_NAME="?([^"\n]*)', text, re.MULTILINE)
    return name[1] if name else platform.system()


def _cpu_name(root: Path) -> str:
    text = _read(root / "proc/cpuinfo") or ""
    name = re.search(r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", text, re.MULTILINE)
    if name:
        return name[1].strip()
    part = re.search(r"^CPU part\s*:\s*(\S+)$", text, re.MULTILINE)
    return _ARM_PARTS.get(part[1], f"ARM part {part[1]}") if part else platform.machine()


_ARM_PARTS = {"0xd42": "ARM Cortex-A78AE", "0xd83": "ARM Neoverse-V3AE"}


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
