"""Power modes of a board, from its own nvpmodel table: names, and what each of them allows.

Ids differ from board to board, and tables from one Jetson Linux to the next: go by names, and by
the table that is on the board rather than by any other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tightrope.jetson.files import text_of

_MODE = re.compile(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=([^\s>]+)\s*>")
_DEFAULT = re.compile(r"<\s*PM_CONFIG\s+DEFAULT=(\d+)\s*>")


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerMode:
    """A row of nvpmodel.conf; a limit that it does not set is None."""

    id: int
    name: str
    cpu_cores: int | None = None
    cpu_max_mhz: int | None = None
    gpu_max_mhz: int | None = None
    emc_max_mhz: int | None = None
    """Of the memory's clock."""
    tpc_mask: int | None = None
    """A bit for each pair of SMs that is switched off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerModes:
    """All that a board has."""

    modes: tuple[PowerMode, ...]
    """By id."""
    default: PowerMode | None
    current: PowerMode | None
    """The one last chosen, else the default."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(mode.name for mode in self.modes)


def read_power_modes(root: Path) -> PowerModes:
    """The table under `root`, and which of its modes is in force; empty where there is none."""
    modes, default = parse_power_modes(text_of(root / "etc/nvpmodel.conf") or "")
    by_id = {mode.id: mode for mode in modes}
    chosen = re.search(r"pmode:(\d+)", text_of(root / "var/lib/nvpmodel/status") or "")
    current = int(chosen[1]) if chosen else default
    return PowerModes(
        modes=tuple(by_id[number] for number in sorted(by_id)),
        default=None if default is None else by_id.get(default),
        current=None if current is None else by_id.get(current),
    )


def parse_power_modes(text: str) -> tuple[tuple[PowerMode, ...], int | None]:
    """The modes and the default's id, from the text of nvpmodel.conf."""
    default = None
    blocks: list[tuple[int, str, dict[tuple[str, str], str]]] = []
    inside = False
    for line in _lines(text):
        if found := _MODE.match(line):
            blocks.append((int(found[1]), found[2], {}))
            inside = True
        elif line.startswith("<"):  # where parameters are declared, or the default
            inside = False
            default = int(found[1]) if (found := _DEFAULT.match(line)) else default
        elif inside and len(words := line.split()) == 3:
            blocks[-1][2][words[0], words[1]] = words[2]
    return tuple(_mode(*block) for block in blocks), default


def _lines(text: str) -> Iterator[str]:
    for line in text.splitlines():
        if (stripped := line.strip()) and not stripped.startswith("#"):
            yield stripped


def _mode(number: int, name: str, settings: Mapping[tuple[str, str], str]) -> PowerMode:
    cores = [value for (what, _), value in settings.items() if what == "CPU_ONLINE"]
    cpu = [
        _limit(value, 1_000)
        for (what, limit), value in settings.items()
        if what.startswith("CPU_") and limit == "MAX_FREQ"
    ]
    known = [mhz for mhz in cpu if mhz is not None]
    mask = settings.get(("TPC_POWER_GATING", "TPC_PG_MASK"), "")
    return PowerMode(
        id=number,
        name=name,
        cpu_cores=cores.count("1") if cores else None,
        cpu_max_mhz=max(known) if len(known) == len(cpu) and known else None,
        gpu_max_mhz=_limit(settings.get(("GPU", "MAX_FREQ"), ""), 1_000_000),
        emc_max_mhz=_limit(settings.get(("EMC", "MAX_FREQ"), ""), 1_000_000),
        tpc_mask=int(mask) if mask.isdecimal() else None,
    )


def _limit(text: str, per_mhz: int) -> int | None:
    """Megahertz; -1 and 0 set no limit."""
    return int(text) // per_mhz if text.isdecimal() and int(text) > 0 else None
