"""`VarlenAttention` as a plugin: one kernel, in which a program knows its segment by searching."""

from __future__ import annotations

from typing import Any

import numpy as np

from tightrope.arrays import Array
from tightrope.interface.onnx import FLOAT
from tightrope.plugins.cases import Case
from tightrope.plugins.description import Description, Form, Limit, Step
from tightrope.plugins.varlen_attention import body
from tightrope.plugins.varlen_attention.cases import cases
from tightrope.plugins.varlen_attention.reference import varlen_attention
from tightrope.plugins.varlen_attention.schema import SCHEMA


def _reference(
    query: Array, key: Array, value: Array, cu_seqlens: Array, *, scale: float, **_: Any
) -> tuple[Array, ...]:
    q, k, v = (part.astype(np.float32) for part in (query, key, value))
    return (varlen_attention(q, k, v, cu_seqlens, scale).astype(query.dtype),)


def _emit(op: Any, values: Any, case: Case) -> Any:
    *operands, cu_seqlens = values
    scale, longest = case.attributes["scale"], case.attributes["longest"]
    return (body.body(op, tuple(operands), cu_seqlens, scale, longest, FLOAT),)


PLUGIN = Description(
    schema=SCHEMA,
    reference=_reference,
    cases=cases,
    forms=(Form(name="", emit=_emit),),
    limits=(Limit(what="head_dim", size="D", least=16, most=128, multiple=8),),
    steps=(Step(kernel="varlen_attention_d{D}"),),
)
