"""`Int4MatMul` as a plugin: one kernel for a few rows, which reads each weight once, one for many.

The weight comes as bytes of two codes, as it lies in the file. The order of inputs is the graph's
matter, and zeros are only for ONNX Runtime.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tightrope.arrays import Array
from tightrope.plugins.cases import Case
from tightrope.plugins.description import ROWS, Description, Form, Limit, Step
from tightrope.plugins.int4_matmul import body
from tightrope.plugins.int4_matmul.cases import cases
from tightrope.plugins.int4_matmul.reference import int4_matmul, unpack
from tightrope.plugins.int4_matmul.schema import SCHEMA

_FEW, _MOST = 16, 1 << 30


def _reference(
    x: Array,
    weight: Array,
    scale: Array,
    zero: Array | None,
    shift: Array | None,
    order: Array | None,
    **_: Any,
) -> tuple[Array, ...]:
    """weight: bytes of two codes [K,N/2], or codes [K,N]."""
    codes = weight
    if weight.shape[1] != scale.shape[1]:
        flat = weight.view(np.uint8).ravel()
        codes = unpack(flat, 2 * flat.size).reshape(len(weight), -1)
    if order is not None:
        x = x[..., order]
    y = int4_matmul(x.astype(np.float32), codes, scale, zero, shift)
    return (y.astype(x.dtype),)


def _emit(op: Any, values: Any, case: Case) -> Any:
    x, weight, scale, *optional = values
    return (body.body(op, x, weight, scale, case.attributes["block_size"], *optional),)


PLUGIN = Description(
    schema=SCHEMA,
    reference=_reference,
    cases=cases,
    forms=(Form(name="", emit=_emit),),
    limits=(
        Limit(what="block_size", size="block_size", least=32, most=128, multiple=32),
        Limit(what="the number of outputs", size="Out", least=16, most=_MOST, multiple=16),
    ),
    steps=(
        Step(kernel="int4_matmul_few_b{block_size}", only=(ROWS, 0, _FEW)),
        Step(kernel="int4_matmul_many_b{block_size}", only=(ROWS, _FEW + 1, _MOST)),
    ),
)
