"""What `tightrope doctor` says of a machine, in lines for people."""

from __future__ import annotations

from collections.abc import Iterator

from tightrope.cli.output import gibibytes, mebibytes
from tightrope.jetson.nvpmodel import PowerMode
from tightrope.jetson.probe import Board, Machine
from tightrope.jetson.sensors import Look
from tightrope.jetson.survey import Survey
from tightrope.jetson.tegrastats import LogSummary

Rows = list[tuple[str, str]]


def machine_rows(machine: Machine) -> Rows:
    """System, processor, memory, disk."""
    rows = [
        ("system", f"{machine.system}, kernel {machine.kernel}, {machine.architecture}"),
        ("processor", f"{machine.cpu}, {machine.num_cores} cores for this process"),
        (
            "memory",
            f"{gibibytes(machine.memory_bytes)}, "
            f"{gibibytes(machine.memory_available_bytes)} available",
        ),
        ("python", machine.python),
    ]
    if machine.cma_bytes:
        free, total = mebibytes(machine.cma_free_bytes), mebibytes(machine.cma_bytes)
        rows.append(("contiguous memory", f"{free} free of {total}"))
    if machine.largest_free_bytes:
        rows.append(("largest free piece", mebibytes(machine.largest_free_bytes)))
    if machine.swap_bytes is not None:
        free, total = gibibytes(machine.swap_free_bytes), gibibytes(machine.swap_bytes)
        rows.append(("swap", f"{free} free of {total}"))
    return [*rows, ("disk", f"{gibibytes(machine.disk_free_bytes)} free")]


def board_rows(found: Survey) -> Rows:
    """Module, software, power mode, clocks and rights of a Jetson."""
    board = found.board
    return [("model", "not a Jetson")] if board is None else list(_board_rows(found, board))


def _board_rows(found: Survey, board: Board) -> Iterator[tuple[str, str]]:
    module, software, clocks, access = board.module, found.software, found.clocks, found.access
    yield "model", board.model
    if module is None:
        yield "module", board.module_id or "unknown"
    else:
        sms = f", {module.num_sms} SM" if module.num_sms else ""
        capability = f"compute capability {module.compute_capability}"
        yield "module", f"{module.name} ({board.module_id}), {capability}{sms}"
    yield "software", _software(board)
    if software is not None:
        packages = {"CUDA": software.cuda, "TensorRT": software.tensorrt}
        yield "installed", ", ".join(f"{name} {it or 'none'}" for name, it in packages.items())
    if board.jetpack is not None and board.jetpack.note:
        yield "note", board.jetpack.note
    mode = board.power_mode
    if mode is None:
        yield "power mode", "unknown; `sudo nvpmodel -q` tells it"
    else:
        yield "power mode", f"{mode.name} (of {', '.join(board.power_modes.names)})"
        if allowed := _allowed(mode):
            yield "which allows", allowed
    if clocks is not None:
        yield "SMs that are on", "unknown" if clocks.active_sms is None else str(clocks.active_sms)
        yield "GPU clock", f"{_mhz(clocks.gpu_mhz)}, at most {_mhz(clocks.gpu_max_mhz)}"
        yield "memory clock", f"{_mhz(clocks.emc_mhz)}, at most {_mhz(clocks.emc_max_mhz)}"
        cores = "unknown" if clocks.cpu_cores is None else str(clocks.cpu_cores)
        yield "CPU cores that are on", f"{cores}, at most {_mhz(clocks.cpu_max_mhz)}"
    if access is not None:
        yield "groups", "root" if access.is_root else ", ".join(access.has) or "none of the GPU's"


def _software(board: Board) -> str:
    pack = board.jetpack
    if board.l4t is None:
        return "no /etc/nv_tegra_release: not a JetPack system"
    if pack is None:
        return f"Jetson Linux {board.l4t}, a release unknown to this Tightrope"
    brings = f"CUDA {pack.cuda}, TensorRT {pack.tensorrt}"
    return f"Jetson Linux {board.l4t}, JetPack {pack.jetpack}, {brings}"


def _allowed(mode: PowerMode) -> str:
    limits = {"GPU": mode.gpu_max_mhz, "memory": mode.emc_max_mhz, "CPU": mode.cpu_max_mhz}
    told = [f"{what} {mhz} MHz" for what, mhz in limits.items() if mhz is not None]
    cores = [] if mode.cpu_cores is None else [f"{mode.cpu_cores} CPU cores"]
    return ", ".join([*cores, *told])


def sensor_rows(sensors: Look) -> Rows:
    """What they read now."""
    watts = "" if sensors.watts is None else f": {sensors.watts:.1f} W"
    rows = [("power", f"{sensors.source or 'no sensor'}{watts}")]
    rows += [(name, _unit(value, "W")) for name, value in sensors.rails.items()]
    rows += [(name, _unit(value, "°C")) for name, value in sensors.temperatures.items()]
    if sensors.throttled:
        rows.append(("holds itself back", ", ".join(sensors.throttled)))
    counted = {name: count for name, count in sensors.over_current.items() if count}
    if counted:
        told = ", ".join(f"{name} {count}" for name, count in counted.items())
        rows.append(("over-current", told))
    return rows + [("note", note) for note in sensors.notes]


def log_rows(log: LogSummary) -> Rows:
    """What a log of tegrastats says."""
    span = "unknown time" if log.seconds is None else f"{log.seconds:.0f} s"
    rows = [("lines", f"{log.lines} in {span}")]
    if log.mean_watts is not None:
        rows.append(("power", f"{log.mean_watts:.2f} W in the mean, {log.most_watts:.2f} at most"))
    if log.energy_j is not None:
        rows.append(("energy", f"{log.energy_j:.0f} J"))
    if log.hottest_c is not None:
        rows.append(("hottest", f"{log.hottest_c:.1f} °C"))
    if log.most_ram_mb is not None:
        rows.append(("memory", f"{log.most_ram_mb} of {log.ram_total_mb} MB at most"))
    if log.least_free_piece_mb is not None:
        rows.append(("largest free piece", f"{log.least_free_piece_mb:g} MB at least"))
    if log.most_swap_mb is not None:
        rows.append(("swap", f"{log.most_swap_mb} MB at most"))
    return rows


def _unit(value: float | None, unit: str) -> str:
    return "cannot be read" if value is None else f"{value:.1f} {unit}"


def _mhz(value: int | None) -> str:
    return "unknown" if value is None else f"{value} MHz"
