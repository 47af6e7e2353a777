"""What a bundle answers where it is exported, into the folder that is not yet a bundle.

`python -m tightrope.runtime.selftest.record BUNDLE` writes the `selftest.npz` of a bundle that has
none. Every graph is run here, those of the host and the standard ones: what does not run, or gives
what is no number, is told before anybody needs it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tightrope.arrays import Array
from tightrope.bundle import SELFTEST, Bundle
from tightrope.errors import BundleError, TightropeError
from tightrope.runtime.loaded import Loaded
from tightrope.runtime.selftest.steps import recorded
from tightrope.runtime.selftest.trials import Outcome, Trials, agreement, spread, trial_names

LEAST_TOLERANCE = {"float32": 2e-3, "float16": 2e-2}
"""What tensor cores, which round factors, may make; and float16 from operator to operator, to which
ONNX Runtime does not round on a CPU."""
_MARGIN = 3


def outcomes(loaded: Loaded) -> dict[str, Outcome]:
    """What each trial gives on the backend of a bundle."""
    trials = Trials(loaded, loaded.backend)
    return {name: trials.outcome(name) for name in trial_names(loaded.manifest)}


def recorded_trials(host: Mapping[str, Outcome], standard: Loaded) -> dict[str, Array]:
    """The arrays of every trial; host: what the host's graphs gave. standard: the others loaded.

    Raises BundleError where a graph gives what is no number.
    """
    arrays: dict[str, Array] = {}
    manifest = standard.manifest
    trials = Trials(standard, standard.backend)
    for name, kept in host.items():
        _check_numbers(f"the host's graph of {name}", kept, "the checkpoint's weights are at fault")
        other = trials.outcome(name)
        way_out = f"it computes in {manifest.activations}: export with --precision fp32"
        _check_numbers(f"the standard graph of {name}", other, way_out)
        arrays |= {f"{name}.{part}": value for part, value in kept.items()}
        least = LEAST_TOLERANCE[manifest.activations]
        arrays[f"{name}.tolerance"] = np.float32(max(least, _MARGIN * spread(kept, other)))
        if (share := agreement(kept, other)) is not None:
            arrays[f"{name}.agreement"] = np.float32(share)
    return arrays


def _check_numbers(what: str, outcome: Outcome, way_out: str) -> None:
    for part, value in outcome.items():
        if not np.isfinite(value).all():
            raise BundleError(f"{what} gives {part} that are no numbers; {way_out}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    given = parser.parse_args()
    try:
        # It is what export runs on, whatever else this machine has.
        from tightrope.runtime.backends.onnxruntime import OnnxRuntimeBackend
        from tightrope.runtime.backends.onnxruntime_cuda import StandardGraphs

        bundle = Bundle.open(given.bundle)
        backend = OnnxRuntimeBackend(bundle, once=True)
        loaded = Loaded(bundle, backend, time.perf_counter)
        assert bundle.manifest.parity is not None and bundle.manifest.parity.tolerance is not None
        arrays, host = recorded(loaded, bundle.manifest.parity.tolerance), outcomes(loaded)
        del loaded, backend  # one set of weights in memory at a time
        standard = Loaded(bundle, StandardGraphs(bundle, device="cpu"), time.perf_counter)
        arrays |= recorded_trials(host, standard)
    except TightropeError as error:
        sys.exit(str(error))
    np.savez_compressed(given.bundle / SELFTEST, **arrays)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
