"""How fast a board may run now: clocks, their caps, and which of the GPU's SMs are on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tightrope.jetson.files import line_of, number_of

GPU_NAMES = ("ga10b", "gpu-gpc", "gpu", "gp10b", "gv11b")
"""In the names of a GPU's clock, Thor's first where it has several."""
_GPU_FALLBACKS = (
    "sys/devices/platform/17000000.gpu/devfreq_dev",  # JetPack 6
    "sys/devices/17000000.ga10b/devfreq/17000000.ga10b",  # JetPack 5
)
_EMC_CAPS = (
    "sys/kernel/nvpmodel_clk_cap/emc",  # JetPack 6
    "sys/kernel/nvpmodel_emc_cap/emc_iso_cap",  # JetPack 5
)
_EMC_RATE = "sys/kernel/debug/bpmp/debug/clk/emc/rate"
_TPC_MASKS = (
    "sys/devices/platform/gpu.0/tpc_pg_mask",
    "sys/devices/platform/17000000.gpu/tpc_pg_mask",
)
SMS_PER_TPC = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """Megahertz; None where the board does not say."""

    gpu_mhz: int | None
    gpu_max_mhz: int | None
    """The cap in force."""
    emc_mhz: int | None
    """Of the memory; only root is told."""
    emc_max_mhz: int | None
    """Its cap; None also where there is none."""
    cpu_cores: int | None
    """That are on."""
    cpu_max_mhz: int | None
    active_sms: int | None


def read_clocks(root: Path, num_tpcs: int | None) -> Clocks:
    """The clocks under `root`; num_tpcs: pairs of SMs that the chip has, on or off."""
    gpu = gpu_folder(root)
    return Clocks(
        gpu_mhz=None if gpu is None else _mhz(gpu / "cur_freq", 1_000_000),
        gpu_max_mhz=None if gpu is None else _mhz(gpu / "max_freq", 1_000_000),
        emc_mhz=_mhz(root / _EMC_RATE, 1_000_000),
        emc_max_mhz=_first(root, _EMC_CAPS, 1_000_000),
        cpu_cores=_cores_online(root),
        cpu_max_mhz=_cpu_max_mhz(root),
        active_sms=_active_sms(root, num_tpcs),
    )


def gpu_folder(root: Path) -> Path | None:
    """Where the GPU's clock is told; None where there is none."""
    known = sorted((root / "sys/class/devfreq").glob("*"))
    for name in GPU_NAMES:
        for folder in known:
            if name in folder.name or name in (line_of(folder / "device/of_node/name") or ""):
                return folder
    return next((root / path for path in _GPU_FALLBACKS if (root / path).is_dir()), None)


def _active_sms(root: Path, num_tpcs: int | None) -> int | None:
    masks = (number_of(root / path) for path in _TPC_MASKS)
    mask = next((mask for mask in masks if mask is not None), None)
    if mask is None or num_tpcs is None:
        return None
    off = bin(mask & ((1 << num_tpcs) - 1)).count("1")
    return SMS_PER_TPC * (num_tpcs - off)


def _cores_online(root: Path) -> int | None:
    """Of "0-3,6"."""
    text = line_of(root / "sys/devices/system/cpu/online")
    try:
        return sum(_span(part) for part in text.split(",")) if text else None
    except ValueError:
        return None


def _span(part: str) -> int:
    first, _, last = part.partition("-")
    return int(last or first) - int(first) + 1


def _cpu_max_mhz(root: Path) -> int | None:
    policies = (root / "sys/devices/system/cpu/cpufreq").glob("policy*/scaling_max_freq")
    known = [mhz for mhz in (_mhz(file, 1_000) for file in policies) if mhz is not None]
    return max(known, default=None)


def _first(root: Path, paths: tuple[str, ...], per_mhz: int) -> int | None:
    found: Iterator[int | None] = (_mhz(root / path, per_mhz) for path in paths)
    return next((mhz for mhz in found if mhz is not None), None)


def _mhz(file: Path, per_mhz: int) -> int | None:
    value = number_of(file)
    return value // per_mhz if value is not None and value > 0 else None
