"""What is wrong with a machine, the most important first, each with what mends it.

One rule, one function; their order in `RULES` is that of importance among what is equally grave.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from tightrope.jetson.device import FP16_FLOP_PER_CLOCK, known_devices
from tightrope.jetson.nvpmodel import PowerMode
from tightrope.jetson.probe import Board, Module
from tightrope.jetson.software import version_key
from tightrope.jetson.survey import Survey

Gravity = Literal["blocks", "breaks", "slows", "unknown"]
GRAVITIES: tuple[Gravity, ...] = ("blocks", "breaks", "slows", "unknown")
"""blocks: nothing runs as it should; breaks: large models or engine builds fail; slows: it is
slower than it could be; unknown: something cannot be told."""
OLDEST_TENSORRT = (10, 3)
SMALL_MEMORY_GB = 8
LEAST_CMA_FREE = 128 << 20
LEAST_CMA_TIGHT = 512 << 20
"""On a release that is strict with contiguous memory."""
LEAST_AVAILABLE = 1 << 30
LEAST_SWAP_SHARE = 0.1
LEAST_DISK_FREE = 4 << 30
MODE_SHARE = 0.7
"""Of the fastest power mode's rate, below which the one in force is told."""
_CMA = "add cma=950M to the APPEND line in /boot/extlinux/extlinux.conf and restart the board"
_HEADLESS = "sudo systemctl set-default multi-user.target, and restart: up to 865 MB become free"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that stands in the way, and what to do about it."""

    gravity: Gravity
    what: str
    fix: str


Rule = Callable[[Survey, Board], Problem | None]


def problems_of(found: Survey) -> tuple[Problem, ...]:
    """Those of a board, the gravest first; of another machine none are known."""
    board = found.board
    if board is None:
        return ()
    told = [problem for rule in RULES if (problem := rule(found, board)) is not None]
    return ordered([*told, *_sensor_problems(found)])


def ordered(problems: list[Problem]) -> tuple[Problem, ...]:
    """The gravest first, else as they come."""
    return tuple(sorted(problems, key=lambda problem: GRAVITIES.index(problem.gravity)))


def _release(found: Survey, board: Board) -> Problem | None:
    module, pack = board.module, board.jetpack
    newest = "flash JetPack 6.2 or newer (Orin), 7.0 or newer (Thor) with NVIDIA's SDK Manager"
    if board.l4t is None:
        if found.in_container:
            return Problem(
                gravity="unknown",
                what="this container does not show /etc/nv_tegra_release of the board",
                fix="docker run -v /etc/nv_tegra_release:/etc/nv_tegra_release:ro ...",
            )
        return Problem(
            gravity="blocks",
            what="there is no /etc/nv_tegra_release: the board runs no Jetson Linux",
            fix=newest,
        )
    if pack is None:
        return Problem(
            gravity="unknown",
            what=f"Jetson Linux {board.l4t} is a release that this Tightrope does not know",
            fix="update Tightrope; if it is the newest, use a release that docs/telemetry.md names",
        )
    if module is not None and module.compute_capability not in pack.compute_capabilities:
        return Problem(
            gravity="blocks",
            what=f"Jetson Linux {board.l4t} (JetPack {pack.jetpack}) is not made for {module.name}",
            fix=newest,
        )
    if version_key(pack.tensorrt) < OLDEST_TENSORRT[: len(version_key(pack.tensorrt))]:
        return Problem(
            gravity="blocks",
            what=f"JetPack {pack.jetpack} brings Python {pack.python} and TensorRT "
            f"{pack.tensorrt}, which are too old",
            fix=newest,
        )
    return None


def _groups(found: Survey, board: Board) -> Problem | None:
    lacks = () if found.access is None else found.access.lacks
    if not lacks:
        return None
    return Problem(
        gravity="blocks",
        what=f"this user is not in the group{'s' * (len(lacks) > 1)} {' and '.join(lacks)}, which "
        "own the GPU's devices",
        fix=f"sudo usermod -aG {','.join(lacks)} $USER, then log in again",
    )


def _tensorrt(found: Survey, board: Board) -> Problem | None:
    software, pack = found.software, board.jetpack
    if software is None or pack is None or version_key(pack.tensorrt) < (10,):
        return None
    expected = version_key(pack.tensorrt)
    if software.tensorrt is None:
        return Problem(
            gravity="breaks",
            what="TensorRT is not installed",
            fix="sudo apt install nvidia-jetpack, or python3-libnvinfer alone",
        )
    if version_key(software.tensorrt)[: len(expected)] != expected:
        return Problem(
            gravity="breaks",
            what=f"TensorRT {software.tensorrt} is installed, JetPack {pack.jetpack} brings "
            f"{pack.tensorrt}: engines of one do not run on the other",
            fix="sudo apt install --reinstall nvidia-jetpack",
        )
    return None


def _python(found: Survey, board: Board) -> Problem | None:
    pack, python = board.jetpack, found.machine.python
    if pack is None or version_key(python)[:2] == version_key(pack.python):
        return None
    return Problem(
        gravity="breaks",
        what=f"Python {python} runs here, TensorRT's package of JetPack {pack.jetpack} is for "
        f"{pack.python}",
        fix=f"make the environment with /usr/bin/python{pack.python} -m venv "
        "--system-site-packages",
    )


def _swap(found: Survey, board: Board) -> Problem | None:
    swap, free = found.machine.swap_bytes, found.machine.swap_free_bytes or 0
    if not swap or free >= LEAST_SWAP_SHARE * swap:
        return None
    return Problem(
        gravity="breaks",
        what=f"swap is full: {_mib(free)} free of {_mib(swap)}; the next large program is killed",
        fix="end what fills it (ps aux --sort -rss | head), or add a swap file: sudo fallocate "
        "-l 8G /swapfile, mkswap, swapon",
    )


def _cma(found: Survey, board: Board) -> Problem | None:
    machine, pack = found.machine, board.jetpack
    if not _is_small(board):
        return None
    if not machine.cma_bytes:
        return Problem(
            gravity="breaks",
            what="no memory is set aside for contiguous pieces (CMA): engine builds fail",
            fix=_CMA,
        )
    if pack is not None and pack.note and machine.cma_bytes < LEAST_CMA_TIGHT:
        return Problem(
            gravity="breaks",
            what=f"{pack.note}, and CMA has {_mib(machine.cma_bytes)}",
            fix=f"{_CMA}; or update to Jetson Linux 36.5",
        )
    if (machine.cma_free_bytes or 0) < LEAST_CMA_FREE:
        return Problem(
            gravity="breaks",
            what=f"{_mib(machine.cma_free_bytes or 0)} of contiguous memory (CMA) are free of "
            f"{_mib(machine.cma_bytes)}: engine builds fail",
            fix=f"end what holds it (a desktop, cameras), or {_CMA}",
        )
    return None


def _memory(found: Survey, board: Board) -> Problem | None:
    available = found.machine.memory_available_bytes
    if available is None or available >= LEAST_AVAILABLE:
        return None
    desktop = f"; without a desktop: {_HEADLESS}" if found.has_desktop else ""
    return Problem(
        gravity="breaks",
        what=f"{_mib(available)} of memory are available: a model may be killed while it loads",
        fix=f"end what takes it (ps aux --sort -rss | head){desktop}",
    )


def _disk(found: Survey, board: Board) -> Problem | None:
    free = found.machine.disk_free_bytes
    if free is None or free >= LEAST_DISK_FREE:
        return None
    return Problem(
        gravity="breaks",
        what=f"{_mib(free)} are free on the system's disk: engines and bundles may not fit",
        fix="sudo apt clean, or put bundles and TIGHTROPE_STATE on another disk",
    )


def _throttled(found: Survey, board: Board) -> Problem | None:
    if not found.sensors.throttled:
        return None
    hottest = found.sensors.hottest_c
    heat = "" if hottest is None else f" at {hottest:.0f} °C"
    return Problem(
        gravity="slows",
        what=f"the board holds itself back now{heat}: {', '.join(found.sensors.throttled)}",
        fix="cool it (sudo jetson_clocks --fan), or serve with --max-temp below that",
    )


def _power_mode(found: Survey, board: Board) -> Problem | None:
    module, mode = board.module, board.power_mode
    if mode is None:
        return Problem(
            gravity="unknown",
            what="the power mode cannot be told: /etc/nvpmodel.conf or its choice is not there",
            fix="sudo nvpmodel -q tells it",
        )
    if module is None:
        return None
    rates = dict(_rates(board, module))
    if mode.name not in rates:
        return None
    best = max(rates, key=lambda name: rates[name])
    share = rates[mode.name] / rates[best]
    if share >= MODE_SHARE:
        return None
    number = next((row.id for row in board.power_modes.modes if row.name == best), None)
    command = "nvpmodel -p --verbose shows the modes" if number is None else f"nvpmodel -m {number}"
    return Problem(
        gravity="slows",
        what=f"power mode {mode.name} gives the GPU {share:.0%} of what {best} gives it",
        fix=f"sudo {command} ({best}; the power supply and the cooling have to be up to it)",
    )


def _capped(found: Survey, board: Board) -> Problem | None:
    mode, clocks = board.power_mode, found.clocks
    if mode is None or clocks is None or not mode.gpu_max_mhz or not clocks.gpu_max_mhz:
        return None
    if clocks.gpu_max_mhz >= 0.95 * mode.gpu_max_mhz:
        return None
    return Problem(
        gravity="slows",
        what=f"the GPU is capped at {clocks.gpu_max_mhz} MHz, power mode {mode.name} allows "
        f"{mode.gpu_max_mhz}",
        fix=f"sudo nvpmodel -m {mode.id}",
    )


def _module(found: Survey, board: Board) -> Problem | None:
    if board.module is not None:
        return None
    return Problem(
        gravity="unknown",
        what=f"module {board.module_id or board.model!r} is in no table of this Tightrope: what "
        "its power modes can do is not known",
        fix="update Tightrope; measure it, as any board: tightrope profile BUNDLE",
    )


def _desktop(found: Survey, board: Board) -> Problem | None:
    if not (found.has_desktop and _is_small(board)):
        return None
    return Problem(
        gravity="slows", what="a desktop starts on a board of little memory", fix=_HEADLESS
    )


RULES: tuple[Rule, ...] = (
    _release,
    _groups,
    _tensorrt,
    _python,
    _swap,
    _cma,
    _memory,
    _disk,
    _throttled,
    _power_mode,
    _capped,
    _module,
    _desktop,
)


def _sensor_problems(found: Survey) -> Iterator[Problem]:
    """Sensors that are there and say nothing that can be, or are not there."""
    sensors = found.sensors
    if sensors.nonsense:
        yield Problem(
            gravity="unknown",
            what=f"sensors say what cannot be, or nothing: {', '.join(sensors.nonsense)}",
            fix="restart the board; as long as they stay so, energy and heat are not told",
        )
    if sensors.source is None:
        yield Problem(
            gravity="unknown",
            what="; ".join(["no sensor tells what the board draws", *sensors.notes]),
            fix="in a container pass /sys through; energy is not measured until then",
        )


def _is_small(board: Board) -> bool:
    module = board.module
    memory_gb = None if module is None else module.memory_gb
    return memory_gb is not None and memory_gb <= SMALL_MEMORY_GB


def _rates(board: Board, module: Module) -> Iterator[tuple[str, float]]:
    """Of each power mode, what the GPU can multiply in a second."""
    tables = {
        device.power_mode: device.fp16_flop_per_s
        for device in known_devices(classic=not board.is_super)
        if device.name == module.name
    }
    for mode in board.power_modes.modes:
        rate = _rate(mode, module) or tables.get(mode.name)
        if rate is not None:
            yield mode.name, rate


def _rate(mode: PowerMode, module: Module) -> float | None:
    """From the board's own table, where that sets both a clock and a mask."""
    if mode.gpu_max_mhz is None or mode.tpc_mask is None or module.num_sms is None:
        return None
    off = bin(mode.tpc_mask & ((1 << module.num_tpcs) - 1)).count("1")
    sms = min(module.num_sms, 2 * (module.num_tpcs - off))
    return FP16_FLOP_PER_CLOCK[module.compute_capability] * sms * mode.gpu_max_mhz * 1e6


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:.0f} MiB"
