"""A backend held against what the bundle answered where it was exported, one finding after another.

First each graph by itself, so that a wrong one is known by its name, then the recorded steps.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np

from tightrope.arrays import Array
from tightrope.bundle import SELFTEST, Bundle
from tightrope.errors import BackendError, TightropeError
from tightrope.foreign import translated
from tightrope.runtime.backends.backend import Backend
from tightrope.runtime.loaded import Loaded
from tightrope.runtime.selftest.steps import compare, stored
from tightrope.runtime.selftest.trials import Outcome, Trials, agreement, spread, trial_names

RECORDED_STEPS = "recorded steps"
_HALF = 0.5
_EXPORT_AGAIN = "export the checkpoint again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What came of one graph, or of the recorded steps."""

    name: str
    passed: bool
    detail: str
    """Figures, and what failed."""
    seconds: float
    ran: bool = True
    """Whether it could be tried here."""


def check(bundle: Bundle, backend: Backend) -> Iterator[Finding]:
    """Findings one after another; whatever a graph fails with is its finding.

    Raises BundleError where the bundle keeps no answers, or cannot be opened.
    """
    steps = stored(bundle)
    arrays = bundle.read_arrays(SELFTEST)
    loaded = Loaded(bundle, backend, time.perf_counter)
    trials = Trials(loaded, backend)
    for name in trial_names(bundle.manifest):
        yield _tried(bundle, name, trials, arrays)
    yield _taught(loaded, steps)


def _tried(bundle: Bundle, name: str, trials: Trials, arrays: dict[str, Array]) -> Finding:
    start = time.perf_counter()
    try:
        with failing():
            outcome = trials.outcome(name)
        with bundle.damaged(SELFTEST):
            complaint, detail = _compared(name, outcome, arrays)
    except TightropeError as error:
        complaint, detail = str(error), ""
    return Finding(
        name=name,
        passed=not complaint,
        detail=complaint or detail,
        seconds=time.perf_counter() - start,
    )


def failing() -> AbstractContextManager[None]:
    """Inside, whatever comes of a wrong answer, an index that no array has, is a BackendError."""
    return translated(BackendError, "the backend failed", "its log may say more")


def _compared(name: str, found: Outcome, arrays: dict[str, Array]) -> tuple[str, str]:
    """What is wrong, empty if nothing; and the figures."""
    recorded = {part: arrays.get(f"{name}.{part}") for part in found}
    tolerance = arrays.get(f"{name}.tolerance")
    if tolerance is None or any(value is None for value in recorded.values()):
        return f"the bundle keeps no answer of this graph; {_EXPORT_AGAIN}", ""
    kept: Outcome = {part: value for part, value in recorded.items() if value is not None}
    for part, value in kept.items():
        if value.shape != found[part].shape or value.dtype != found[part].dtype:
            return f"{part} is {list(found[part].shape)}, recorded is {list(value.shape)}", ""
    allowed, apart = float(tolerance), spread(kept, found)
    detail = f"differs by {apart:.1e}, {allowed:.1e} is allowed"
    share = agreement(kept, found)
    if share is not None:
        usual = float(arrays.get(f"{name}.agreement", np.float32(1)))
        detail += f"; keeps {share:.0%} of the same tokens"
        if share < _HALF * usual:
            return f"{detail}, {usual:.0%} is usual", detail
    else:
        for part, value in kept.items():
            if value.dtype.kind == "i" and (wrong := int((value != found[part]).sum())):
                return f"{wrong} of {value.size} numbers of {part} are others", detail
    # So that what is no number fails.
    return ("" if apart <= allowed else detail), detail


def _taught(loaded: Loaded, steps: dict[str, Array]) -> Finding:
    start = time.perf_counter()
    try:
        with failing():
            found = compare(loaded, steps)
        passed = found.passed
        detail = (
            f"{len(steps['tokens'])} steps, logits differ by {found.worst:.1e}, "
            f"{found.tolerance:.1e} is allowed"
        )
        if not passed:
            detail += f"; astray at steps {', '.join(map(str, found.astray))}"
    except TightropeError as error:
        passed, detail = False, str(error)
    seconds = time.perf_counter() - start
    return Finding(name=RECORDED_STEPS, passed=passed, detail=detail, seconds=seconds)
