"""Faces of own ops against their references: all that can run here pass, a wrong one is named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tightrope.errors import BackendError
from tightrope.plugins.cases import LARGEST, Case
from tightrope.plugins.description import Description
from tightrope.plugins.ops import ops
from tightrope.runtime.selftest import ops as selftest
from tightrope.runtime.selftest.check import Finding

FACES = {
    "SlotAttention": ("body general", "body step", "body append", "kernels", "kernels for int8"),
    "SelectTokens": ("body", "kernels"),
    "Int4MatMul": ("body", "kernels"),
    "VarlenAttention": ("body", "kernels"),
}


def found(kernels: Any = None) -> dict[str, Finding]:
    return {finding.name: finding for finding in selftest.op_findings(kernels, 32)}


def test_every_face_of_every_op_has_its_line() -> None:
    pytest.importorskip("onnx_ir", reason="bodies are written with it")
    findings = found()
    assert set(findings) == {f"{name}, {face}" for name, faces in FACES.items() for face in faces}
    assert {name: each.detail for name, each in findings.items() if not each.passed} == {}
    for name, each in findings.items():
        assert each.ran == ("kernels" not in name)
        assert each.ran or each.detail == "not run: no GPU computes here"


@pytest.mark.parametrize("name", sorted(FACES))
def test_cases_go_to_the_limits_and_have_names_of_their_own(name: str) -> None:
    cases = list(ops()[name].cases(32))
    assert len({case.name for case in cases}) == len(cases)
    rows, largest = ops()[name].schema.inputs, 0.0
    for case in cases:
        for row, array in zip(rows, case.inputs, strict=True):
            if array is None or array.dtype.kind != "f":
                continue
            largest = max(largest, float(np.abs(array).max(initial=0)))
            if row.dtype == "activation":
                np.testing.assert_array_equal(array, array.astype(np.float16), case.name)
        outputs = ops()[name].reference(*case.inputs, **case.attributes)
        assert all(np.isfinite(output).all() for output in outputs), case.name
    assert largest >= LARGEST


class Wrong:
    """Kernels that compute in float16 what the reference does, but for one case."""

    def __init__(self, name: str) -> None:
        self._name = name

    def lacking(self, description: Description, cases: Sequence[Case]) -> str:
        assert cases
        return "" if description.schema.name == "SelectTokens" else "no kernel x for sm_90"

    def compute(self, description: Description, case: Case) -> Sequence[Any]:
        index, places = description.reference(*case.inputs)
        if case.name == self._name:
            index = index + 1
        if case.name == "one is kept":
            raise BackendError("the GPU failed: misaligned address")
        return index, places


def test_a_wrong_kernel_is_named_with_its_case() -> None:
    findings = found(Wrong("scores that are equal"))
    failed = findings["SelectTokens, kernels"]
    assert not failed.passed and failed.ran
    assert "scores that are equal: differs by inf" in failed.detail
    assert "one is kept: the GPU failed: misaligned address" in failed.detail
    assert "drawn:" not in failed.detail
    assert findings["Int4MatMul, kernels"].detail == "not run: no kernel x for sm_90"
    assert not findings["Int4MatMul, kernels"].ran


def test_what_is_no_number_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    op = ops()["VarlenAttention"]

    def nothing(*inputs: Any, **_: Any) -> tuple[Any, ...]:
        return (np.full_like(inputs[0], np.nan),)

    wrong = replace(op, reference=nothing)
    monkeypatch.setattr(selftest, "ops", lambda: {"VarlenAttention": wrong})
    assert not found()["VarlenAttention, body"].passed
