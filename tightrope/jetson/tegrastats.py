"""Lines of NVIDIA's tegrastats, of every release that was seen: by key, whatever is not there.

Its fields differ from board to board and from release to release: SWAP is absent where there is
none, loads are without clocks on old ones, Thor has clocks without a load. A line that was cut
gives what of it is whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from tightrope.jetson.sensors import COLDEST_C, HOTTEST_C, MOST_WATTS, TOTALS

Figure = TypeVar("Figure", int, float)

_BEGINS = re.compile(r"(?:\d{2}-\d{2}-\d{4} \d{2}:\d{2}:\d{2} )?(?<![A-Z])RAM \d")
_TIME = re.compile(r"\d{2}-\d{2}-\d{4} \d{2}:\d{2}:\d{2}")
_RAM = re.compile(r"\bRAM (\d+)/(\d+)MB")
_SWAP = re.compile(r"\bSWAP (\d+)/(\d+)MB")
_LARGEST = re.compile(r"\(lfb (\d+)x(\d+)(MB|kB)\)")
_CPU = re.compile(r"\bCPU \[([^\]]+)\]")
_CORE = re.compile(r"(\d+)%(?:@(\d+))?")
_LOAD = r"(?: (\d+)%)?(?:@\[?(\d+)(?:,\d+)*\]?| @\[?(\d+)(?:,\d+)*\]?)?(?= |$)"
_EMC = re.compile(rf"\bEMC_FREQ{_LOAD}")
_GPU = re.compile(rf"\bGR3D_FREQ{_LOAD}")
_HEAT = re.compile(r"(?<!\S)([A-Za-z][\w-]*)@(-?\d+(?:\.\d+)?)C(?=\s|$)")
_RAIL = re.compile(r"(?<!\S)([A-Z][A-Z0-9_]+) (\d+)(?:mW)?/(\d+)(?:mW)?(?=\s|$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What one line says; None, or no entry, where it does not."""

    time: datetime | None
    ram_mb: int | None
    ram_total_mb: int | None
    largest_free_mb: float | None
    swap_mb: int | None
    swap_total_mb: int | None
    cpu_percent: tuple[int | None, ...]
    """Of each core; None: it is off."""
    cpu_mhz: int | None
    """Of the fastest core."""
    emc_percent: int | None
    """0 also where it is not ours to know."""
    emc_mhz: int | None
    gpu_percent: int | None
    gpu_mhz: int | None
    temperatures: dict[str, float]
    rails: dict[str, float]
    """Watts."""

    @property
    def watts(self) -> float | None:
        """Of the whole board; None where no table says which rails make it up."""
        for names in TOTALS:
            if {*names} <= {*self.rails}:
                return sum(self.rails[name] for name in names)
        return None

    @property
    def hottest_c(self) -> float | None:
        return max(self.temperatures.values(), default=None)


def parse_line(text: str) -> Line | None:
    """A line of tegrastats; None where nothing in it is whole."""
    text = _whole(text)
    ram, swap, largest = _RAM.search(text), _SWAP.search(text), _LARGEST.search(text)
    emc, gpu = _EMC.search(text), _GPU.search(text)
    cores = _cores(text)
    line = Line(
        time=_time(text),
        ram_mb=int(ram[1]) if ram else None,
        ram_total_mb=int(ram[2]) if ram else None,
        largest_free_mb=_largest(largest) if largest else None,
        swap_mb=int(swap[1]) if swap else None,
        swap_total_mb=int(swap[2]) if swap else None,
        cpu_percent=tuple(load for load, _ in cores),
        cpu_mhz=max((mhz for _, mhz in cores if mhz is not None), default=None),
        emc_percent=_number(emc, 1),
        emc_mhz=_number(emc, 2, 3),
        gpu_percent=_number(gpu, 1),
        gpu_mhz=_number(gpu, 2, 3),
        temperatures=dict(_temperatures(text)),
        rails=dict(_rails(text)),
    )
    return line if ram or line.temperatures or line.rails else None


def parse_log(text: str) -> list[Line]:
    """All whole lines of a log; the last word of one that has no end may be half of it."""
    found = []
    for line in text.splitlines(keepends=True):
        whole = line if line.endswith("\n") else line.rpartition(" ")[0]
        if (parsed := parse_line(whole)) is not None:
            found.append(parsed)
    return found


def _whole(text: str) -> str:
    """Without a first word that may be half of one, nor a line before that broke off in it."""
    begins = [found.start() for found in _BEGINS.finditer(text)]
    return text[begins[-1] :].strip() if begins else text.partition(" ")[2].strip()


def _time(text: str) -> datetime | None:
    found = _TIME.match(text)
    try:
        return datetime.strptime(found[0], "%m-%d-%Y %H:%M:%S") if found else None
    except ValueError:
        return None


def _largest(found: re.Match[str]) -> float:
    return int(found[2]) if found[3] == "MB" else int(found[2]) / 1024


def _cores(text: str) -> list[tuple[int | None, int | None]]:
    found = _CPU.search(text)
    cores: list[tuple[int | None, int | None]] = []
    for part in found[1].split(",") if found else ():
        core = _CORE.fullmatch(part.strip())
        cores.append((int(core[1]), _number(core, 2)) if core else (None, None))
    return cores


def _number(found: re.Match[str] | None, *groups: int) -> int | None:
    """Of the first group that is there."""
    texts = (found[group] for group in groups if found[group]) if found else ()
    return next(map(int, texts), None)


def _temperatures(text: str) -> Iterator[tuple[str, float]]:
    for name, degrees in _HEAT.findall(text):
        if COLDEST_C <= float(degrees) <= HOTTEST_C:  # what is off says -256
            yield name, float(degrees)


def _rails(text: str) -> Iterator[tuple[str, float]]:
    for name, milliwatts, _ in _RAIL.findall(text):
        if name not in ("RAM", "SWAP", "IRAM") and int(milliwatts) / 1e3 <= MOST_WATTS:
            yield name, int(milliwatts) / 1e3


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSummary:
    """What a log says of its time; None where it does not."""

    lines: int
    seconds: float | None
    """From the first to the last that has a time."""
    mean_watts: float | None
    most_watts: float | None
    energy_j: float | None
    hottest_c: float | None
    most_ram_mb: int | None
    ram_total_mb: int | None
    least_free_piece_mb: float | None
    """The smallest that the largest free piece of memory was."""
    most_swap_mb: int | None


def summary_of(lines: Sequence[Line]) -> LogSummary:
    """Of the lines of one log, in their order."""
    times = [line.time for line in lines if line.time is not None]
    seconds = (times[-1] - times[0]).total_seconds() if len(times) > 1 else None
    watts = [line.watts for line in lines if line.watts is not None]
    mean = sum(watts) / len(watts) if watts else None
    going_on = seconds is not None and seconds > 0
    return LogSummary(
        lines=len(lines),
        seconds=seconds if going_on else None,  # a clock that was set back tells no time
        mean_watts=mean,
        most_watts=max(watts, default=None),
        energy_j=mean * seconds if going_on and mean is not None and seconds else None,
        hottest_c=_most(line.hottest_c for line in lines),
        most_ram_mb=_most(line.ram_mb for line in lines),
        ram_total_mb=_most(line.ram_total_mb for line in lines),
        least_free_piece_mb=min(
            (line.largest_free_mb for line in lines if line.largest_free_mb is not None),
            default=None,
        ),
        most_swap_mb=_most(line.swap_mb for line in lines),
    )


def _most(values: Iterable[Figure | None]) -> Figure | None:
    return max((value for value in values if value is not None), default=None)
