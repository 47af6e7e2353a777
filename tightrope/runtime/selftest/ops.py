"""Every face of every own op against its reference, on drawn inputs and on those at their limits.

A body is computed in float32 by ONNX Runtime, where onnx_ir is there to write it; kernels on the
GPU that a backend computes on. What cannot run here is said, and is no failure.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np

from tightrope.arrays import Array
from tightrope.errors import TightropeError
from tightrope.plugins.cases import Case
from tightrope.plugins.description import Description, rows_of
from tightrope.plugins.ops import ops
from tightrope.runtime.selftest import bodies
from tightrope.runtime.selftest.check import Finding, failing

_BODY, _KERNEL = 2e-5, 2e-3
"""Largest difference as a share of the largest number: float32 against itself, and float16."""
_LEAST = 1e-30
_HEAD_DIM = 16
"""Of bodies, which are the same for every width."""
Compute = Callable[[Case], Sequence[Array]]


class OpKernels(Protocol):
    """Kernels of own ops on a GPU."""

    def lacking(self, description: Description, cases: Sequence[Case]) -> str:
        """Why the op's kernels cannot run these cases there; empty if they can."""

    def compute(self, description: Description, case: Case) -> Sequence[Array]:
        """Outputs of one call in float16; raises BackendError."""


def op_findings(kernels: OpKernels | None, head_dim: int) -> Iterator[Finding]:
    """A finding for each face of each op.

    kernels: None where no GPU computes. head_dim: for which they were compiled.
    """
    for name, description in ops().items():
        for form in description.forms:
            title = f"{name}, body {form.name}".rstrip()
            if lacking := bodies.lacking():
                yield _not_run(title, lacking)
                continue
            cases = [case for case in description.cases(_HEAD_DIM) if form.takes(case)]
            yield _held(title, description, bodies.Body(description, form), cases, _BODY)
        for title, some in _by_kernels(description, head_dim).items():
            yield _of_kernels(f"{name}, {title}", description, kernels, some)


def _by_kernels(description: Description, head_dim: int) -> dict[str, list[Case]]:
    """An op's cases by the kernels that a bundle has for them: those for int8 are apart."""
    scales = set(description.schema.scaled.values())
    found: dict[str, list[Case]] = {}
    for case in description.cases(head_dim):
        in_int8 = any(row.name in scales for row in rows_of(description.schema, case.inputs))
        found.setdefault("kernels for int8" if in_int8 else "kernels", []).append(case)
    return found


def _of_kernels(
    title: str, description: Description, kernels: OpKernels | None, cases: Sequence[Case]
) -> Finding:
    if kernels is None:
        return _not_run(title, "no GPU computes here")
    if lacking := kernels.lacking(description, cases):
        return _not_run(title, lacking)
    return _held(
        title, description, lambda case: kernels.compute(description, case), cases, _KERNEL
    )


def _not_run(title: str, why: str) -> Finding:
    return Finding(name=title, passed=True, ran=False, detail=f"not run: {why}", seconds=0.0)


def _held(
    title: str, description: Description, compute: Compute, cases: Sequence[Case], allowed: float
) -> Finding:
    """One face on all of the cases."""
    start, worst, wrong = time.perf_counter(), 0.0, list[str]()
    for case in cases:
        wanted = description.reference(*case.inputs, **case.attributes)
        try:
            with failing():
                apart = _apart(compute(case), wanted)
        except TightropeError as error:
            wrong.append(f"{case.name}: {error}")
            continue
        if not apart <= allowed:  # so that what is no number fails
            wrong.append(f"{case.name}: differs by {apart:.1e}")
        worst = float(np.maximum(worst, apart))
    detail = f"{len(cases)} calls, differs by {worst:.1e}, {allowed:.0e} is allowed"
    return Finding(
        name=title,
        passed=not wrong,
        detail="; ".join([detail, *wrong]),
        seconds=time.perf_counter() - start,
    )


def _apart(found: Sequence[Array], wanted: Sequence[Array]) -> float:
    """Largest difference as a share of the largest number; infinite where whole ones differ."""
    worst = 0.0
    for mine, theirs in zip(found, wanted, strict=True):
        if mine.shape != theirs.shape:
            return np.inf
        if theirs.dtype.kind == "i":
            if not np.array_equal(mine, theirs):
                return np.inf
        elif theirs.size:
            size = max(float(np.abs(theirs).max()), _LEAST)
            difference = np.abs(mine.astype(np.float64) - theirs.astype(np.float64)).max()
            worst = float(np.maximum(worst, difference / size))
    return worst
