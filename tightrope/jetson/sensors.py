"""Power, heat and what holds a board back, as its sensors tell it in small files.

    power       hwmon: INA3221 (Orin) in millivolts and milliamperes, INA238 (Thor) in microwatts;
                where there is neither, RAPL, which counts the joules of the processor alone
    heat        thermal zones, in thousandths of a degree
    throttling  cooling devices that are at work, other than fans
    current     counters and alarms of over-current

Sensors may vanish, and may say what cannot be: then they have no value at that moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tightrope.jetson.files import line_of, number_of
from tightrope.jetson.probe import ROOT

MOST_WATTS = 500.0
COLDEST_C, HOTTEST_C = -60.0, 150.0
"""What lies beyond is no reading."""
INA3221_LAG_S = 0.3
"""It averages 512 conversions."""
INA238_LAG_S = 0.05
"""Taken for it: nothing that was at hand says how it is set up."""
TOTALS = (
    ("VDD_IN",),  # Orin Nano, Orin NX
    ("VIN",),  # Thor
    ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),  # AGX Orin
    ("VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0"),  # Thor, where VIN cannot be read
)
"""Rails that add up to what the board draws; the first whose rails are all there counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rail:
    """A line of power with a sensor."""

    label: str
    chip: str
    lag_s: float
    """By which a reading is older than it looks."""
    watts: Callable[[], float | None]
    """None: it could not be read, or said what cannot be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counter:
    """Joules since some time, of which differences are told."""

    label: str
    joules: Callable[[], float | None]
    wraps_at: float
    """Joules at which it begins anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensors:
    """Those of one machine, in the order in which they were found."""

    rails: tuple[Rail, ...]
    total: tuple[Rail, ...]
    """Those that add up to what the board draws; none where no table knows them."""
    counters: tuple[Counter, ...]
    """RAPL's packages, where no rails add up."""
    zones: tuple[tuple[str, Path], ...]
    """Of temperatures."""
    cooling: tuple[tuple[str, Path], ...]
    """What slows the board down; fans do not."""
    events: tuple[tuple[str, Path], ...]
    """Numbers that rise, or turn from 0, with every over-current."""
    notes: tuple[str, ...]
    """Why something is missing."""

    @property
    def source(self) -> str | None:
        """What power is measured by; None: by nothing."""
        if self.total:
            return f"{self.total[0].chip} {' + '.join(rail.label for rail in self.total)}"
        names = " + ".join(counter.label for counter in self.counters)
        return f"RAPL {names}, the processor alone" if names else None

    @property
    def lag_s(self) -> float:
        """By which power is known late."""
        return max((rail.lag_s for rail in self.total), default=0.0)

    @property
    def any(self) -> bool:
        """Whether there is anything to look at."""
        return bool(self.source or self.zones or self.cooling or self.events)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What sensors read at one moment; None: could not be read."""

    source: str | None
    watts: float | None
    """Of the whole board."""
    rails: dict[str, float | None]
    temperatures: dict[str, float | None]
    throttled: tuple[str, ...]
    """What slows the board down now."""
    over_current: dict[str, int | None]
    nonsense: tuple[str, ...]
    """Sensors that say what cannot be; a rail also if it cannot be read."""
    notes: tuple[str, ...]

    @property
    def hottest_c(self) -> float | None:
        return max((c for c in self.temperatures.values() if c is not None), default=None)


def sensors_of(root: Path = ROOT) -> Sensors:
    """The sensors of the machine under `root`."""
    rails = tuple(_rails(root))
    by_label = {rail.label: rail for rail in rails}
    total = next(
        (tuple(by_label[name] for name in names) for names in TOTALS if {*names} <= {*by_label}), ()
    )
    counters, notes = _rapl(root) if not total else ((), [])
    if rails and not total:
        notes.append(f"no table says which rails make up the board: {', '.join(by_label)}")
    zones, cooling = _thermal(root)
    return Sensors(
        rails=rails,
        total=total,
        counters=tuple(counters),
        zones=zones,
        cooling=cooling,
        events=tuple(_over_current(root)),
        notes=tuple(notes),
    )


def look(sensors: Sensors) -> Look:
    """All of them, once."""
    rails = {rail.label: rail.watts() for rail in sensors.rails}
    # Zones of what is switched off cannot be read: that is as it should be.
    degrees = {name: number_of(file) for name, file in sensors.zones}
    temperatures = {name: _celsius(value) for name, value in degrees.items()}
    nonsense = [name for name, watts in rails.items() if watts is None]
    nonsense += [
        name for name, value in degrees.items() if value is not None and temperatures[name] is None
    ]
    return Look(
        source=sensors.source,
        watts=total_watts(sensors),
        rails=rails,
        temperatures=temperatures,
        throttled=throttled_by(sensors),
        over_current={name: number_of(file) for name, file in sensors.events},
        nonsense=tuple(nonsense),
        notes=sensors.notes,
    )


def total_watts(sensors: Sensors) -> float | None:
    """What the board draws; None where a rail cannot be read."""
    watts = [rail.watts() for rail in sensors.total]
    known = [each for each in watts if each is not None]
    return sum(known) if watts and len(known) == len(watts) else None


def hottest_c(sensors: Sensors) -> float | None:
    """Of all zones that can be read."""
    degrees = (_celsius(number_of(file)) for _, file in sensors.zones)
    return max((each for each in degrees if each is not None), default=None)


def _celsius(value: int | None) -> float | None:
    if value is None or not COLDEST_C <= value / 1e3 <= HOTTEST_C:
        return None
    return value / 1e3


def throttled_by(sensors: Sensors) -> tuple[str, ...]:
    """Names of the cooling devices that are at work."""
    return tuple(name for name, file in sensors.cooling if (number_of(file) or 0) > 0)


def _rails(root: Path) -> Iterator[Rail]:
    for folder in _chips(root):
        chip = line_of(folder / "name")
        if chip == "ina3221":
            yield from _ina3221(folder)
        elif chip in ("ina238", "ina237") and (folder / "power1_input").exists():
            label = line_of(folder / "power1_label") or line_of(folder / "in1_label") or "VIN"
            yield Rail(label=label, chip="INA238", lag_s=INA238_LAG_S, watts=_microwatts(folder))


def _chips(root: Path) -> list[Path]:
    """Folders of hwmon, each once, whichever of its two names it is found by."""
    found = [
        *(root / "sys/class/hwmon").glob("hwmon*"),
        *(root / "sys/bus/i2c/devices").glob("*/hwmon/hwmon*"),
    ]
    return sorted({folder.resolve(): folder for folder in reversed(found)}.values())


def _ina3221(folder: Path) -> Iterator[Rail]:
    for number in (1, 2, 3):
        label = line_of(folder / f"in{number}_label")
        if not label or label == "NC" or label.startswith("sum of"):
            continue
        millivolts, milliamperes = folder / f"in{number}_input", folder / f"curr{number}_input"
        if millivolts.exists() and milliamperes.exists():
            watts = _volts_times_amperes(millivolts, milliamperes)
            yield Rail(label=label, chip="INA3221", lag_s=INA3221_LAG_S, watts=watts)


def _volts_times_amperes(millivolts: Path, milliamperes: Path) -> Callable[[], float | None]:
    files = str(millivolts), str(milliamperes)

    def watts() -> float | None:
        volts, amperes = map(number_of, files)
        if volts is None or amperes is None or volts < 0 or amperes < 0:
            return None
        return _plausible(volts * amperes / 1e6)

    return watts


def _microwatts(folder: Path) -> Callable[[], float | None]:
    file = str(folder / "power1_input")

    def watts() -> float | None:
        value = number_of(file)
        return None if value is None else _plausible(value / 1e6)

    return watts


def _plausible(watts: float) -> float | None:
    return watts if 0 <= watts <= MOST_WATTS else None


def _rapl(root: Path) -> tuple[list[Counter], list[str]]:
    found, closed = [], []
    for folder in sorted((root / "sys/class/powercap").glob("*rapl:*")):
        name = line_of(folder / "name") or ""
        if not name.startswith("package"):
            continue
        file, most = folder / "energy_uj", number_of(folder / "max_energy_range_uj")
        if number_of(file) is None or most is None:
            closed.append(name)
            continue
        found.append(Counter(label=name, joules=_microjoules(file), wraps_at=most / 1e6))
    if closed:
        return [], [f"RAPL is there ({', '.join(closed)}), but only root may read energy_uj"]
    return found, []


def _microjoules(file: Path) -> Callable[[], float | None]:
    path = str(file)

    def joules() -> float | None:
        value = number_of(path)
        return None if value is None or value < 0 else value / 1e6

    return joules


def _thermal(root: Path) -> tuple[tuple[tuple[str, Path], ...], tuple[tuple[str, Path], ...]]:
    """Zones and cooling devices, with the files that tell their temperature and their state."""
    folder = root / "sys/class/thermal"
    if not folder.is_dir():
        folder = root / "sys/devices/virtual/thermal"
    zones = _typed(folder, "thermal_zone*", "temp")
    cooling = [each for each in _typed(folder, "cooling_device*", "cur_state") if _slows(each[0])]
    return tuple(zones), tuple(cooling)


def _slows(kind: str) -> bool:
    return "fan" not in kind


def _typed(folder: Path, pattern: str, value: str) -> Sequence[tuple[str, Path]]:
    numbered = sorted(folder.glob(pattern), key=lambda path: (len(path.name), path.name))
    named = ((line_of(path / "type") or path.name, path / value) for path in numbered)
    return [(name.removesuffix("-thermal"), file) for name, file in named]


def _over_current(root: Path) -> Iterator[tuple[str, Path]]:
    for folder in _chips(root):
        chip = line_of(folder / "name") or folder.name
        for file in sorted(folder.glob("oc*_event_cnt")):
            yield file.name.partition("_")[0], file
        if chip == "ina3221":
            for file in sorted(folder.glob("curr[123]_*alarm")):
                number = file.name[4]
                label = line_of(folder / f"in{number}_label") or f"channel {number}"
                yield f"{label} {file.name.partition('_')[2]}", file
