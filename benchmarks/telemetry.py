"""What looking at a board twenty times a second costs, and how right the energy of a load is.

    python benchmarks/telemetry.py [--seconds 60]

Both on composed files of boards. The cost is the processor time of the thread that looks, on a file
system in memory: the hardware behind a board's own files, such as an I²C bus at 0.6 ms a reading,
is waited for and not counted. Loads are drawn; sensors that average block by block and such whose
window runs say late what they draw.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType

import numpy as np
from measuring import record, spread

from tightrope.arrays import Doubles
from tightrope.jetson.energy import SETTLED_LAGS, SHORTEST_LAGS
from tightrope.jetson.record import Record
from tightrope.jetson.sensors import INA3221_LAG_S as LAG
from tightrope.jetson.sensors import sensors_of
from tightrope.jetson.telemetry import PERIOD_S, SLOW_EVERY, Telemetry

BOARDS = Path(__file__).parents[1] / "tests" / "jetson" / "boards.py"
MEMORY = Path("/dev/shm")
STEP = 0.001


def composed() -> ModuleType:
    """The boards of the tests."""
    spec = importlib.util.spec_from_file_location("boards", BOARDS)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["boards"] = module
    spec.loader.exec_module(module)
    return module


def cost_percent(root: Path, seconds: float) -> float:
    """Of one core, for looking as the thread does."""
    telemetry = Telemetry(sensors_of(root))
    looks = round(seconds / PERIOD_S) // SLOW_EVERY * SLOW_EVERY
    for _ in range(SLOW_EVERY):
        telemetry.look()
    used = 0.0
    for _ in range(looks):
        time.sleep(PERIOD_S / 20)  # as the thread does, if not as long: caches are cold again
        started = time.thread_time()
        telemetry.look()
        used += time.thread_time() - started
    return 100 * used / (looks * PERIOD_S)


def sensed(drawn: Doubles, kind: str) -> Doubles:
    """What a sensor says of it."""
    if kind == "block by block":
        size = round(LAG / STEP)
        means = drawn[: len(drawn) // size * size].reshape(-1, size).mean(1)
        return np.repeat(np.concatenate([[drawn[0]], means[:-1]]), size)
    size = round(2 * LAG / STEP)
    sums = np.cumsum(np.concatenate([np.full(size, drawn[0]), drawn]))
    return np.asarray((sums[size:] - sums[:-size]) / size, np.float64)


def errors_percent(kind: str, loads: int) -> list[float]:
    """Of the energies of loads of 1.2 to 15 s and 8 to 60 W over 5 W."""
    rng, found = np.random.default_rng(0), []
    for _ in range(loads):
        seconds = float(rng.uniform(SHORTEST_LAGS * LAG + 0.01, 15.0))
        watts, begin = float(rng.uniform(8.0, 60.0)), float(rng.uniform(3.0, 4.0))
        drawn = np.full(30_000, 5.0)
        drawn[round(begin / STEP) : round((begin + seconds) / STEP)] = watts
        said, record_ = sensed(drawn, kind), Record("INA3221 VDD_IN", LAG)
        for at in np.arange(0.0, begin + seconds + (SETTLED_LAGS + 1) * LAG, PERIOD_S):
            record_.add_watts(float(at), float(said[round(at / STEP)]))
        energy = record_.between(begin, begin + seconds).energy_j
        assert energy is not None
        found.append(100 * abs(energy / (watts * seconds) - 1))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--loads", type=int, default=300)
    given = parser.parse_args()
    boards = composed()
    costs = {}
    for name, kit in boards.KITS.items():
        with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
            root = boards.laid_out(Path(folder), boards.files_of(kit))
            costs[name] = cost_percent(root, given.seconds)
    errors = {
        kind: errors_percent(kind, given.loads) for kind in ("block by block", "window that runs")
    }
    figures = {
        "percent of one core": costs,
        "error of a load's energy, percent": {
            kind: {**spread(found), "most": max(found)} for kind, found in errors.items()
        },
    }
    record("telemetry", figures)


if __name__ == "__main__":
    main()
