"""Our own ops as torch knows them while it traces, and the ONNX nodes that they become."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import onnx
import torch
from onnxscript import values as onnxscript_values
from transformers import AttentionInterface
from transformers.integrations.moe import ExpertsInterface

from tightrope.export.tracing.attention import (
    DECODER_ATTENTION,
    PACKED_ATTENTION,
    TOWER_ATTENTION,
    attend_packed,
    attend_slots,
    attend_tower,
)
from tightrope.export.tracing.experts import EXPERTS, mix_experts
from tightrope.interface.onnx import OWN_DOMAIN, OWN_OPSET
from tightrope.plugins import select_tokens, slot_attention, varlen_attention
from tightrope.plugins.schema import OpSchema

_ONNX = {"activation": "T", "float32": "tensor(float)"}
_ONNX |= {name: f"tensor({name})" for name in ("int32", "int64")}


@functools.cache
def register() -> None:
    """Make the seams and the own ops known to transformers and torch, once a process."""
    AttentionInterface.register(DECODER_ATTENTION, attend_slots)
    AttentionInterface.register(TOWER_ATTENTION, attend_tower)
    AttentionInterface.register(PACKED_ATTENTION, attend_packed)
    ExpertsInterface.register(EXPERTS, mix_experts)
    _define("slot_attention", slot_attention.SCHEMA, "float scale, float softcap, int window")
    _define("select_tokens", select_tokens.SCHEMA, "")
    _define("varlen_attention", varlen_attention.SCHEMA, "float scale, int longest")

    @torch.library.register_fake("tightrope::slot_attention")  # type: ignore[untyped-decorator]
    def _(query: Any, key: Any, *rest: Any) -> Any:
        score, position, query_position = rest[3], rest[4], rest[5]
        target = query_position.new_empty(key.shape[:3])
        return torch.empty_like(query), target, torch.empty_like(score), position.clone()

    @torch.library.register_fake("tightrope::select_tokens")  # type: ignore[untyped-decorator]
    def _(score: Any, candidates: Any, keep_ramp: Any) -> Any:
        rows, keep = score.shape[0], keep_ramp.shape[0]
        length = score.shape[1] - candidates.shape[1] + keep
        return candidates.new_empty(rows, length), candidates.new_empty(rows, keep)

    @torch.library.register_fake("tightrope::varlen_attention")  # type: ignore[untyped-decorator]
    def _(query: Any, *_: Any) -> Any:
        return torch.empty_like(query)


def translations() -> dict[Any, Callable[..., Any]]:
    """What torch's exporter calls for each own op."""
    attend = _node(slot_attention.SCHEMA)
    select = _node(select_tokens.SCHEMA)
    attend_varlen = _node(varlen_attention.SCHEMA)

    def translate_attention(*operands: Any) -> Any:
        count = len(slot_attention.SCHEMA.required)
        scale, softcap, window = operands[count:]
        return attend(*operands[:count], scale=scale, softcap=softcap, window=window)

    def translate_selection(*operands: Any) -> Any:
        return select(*operands)

    def translate_packed(*operands: Any) -> Any:
        count = len(varlen_attention.SCHEMA.required)
        scale, longest = operands[count:]
        return attend_varlen(*operands[:count], scale=scale, longest=longest)

    return {
        torch.ops.tightrope.slot_attention.default: translate_attention,
        torch.ops.tightrope.select_tokens.default: translate_selection,
        torch.ops.tightrope.varlen_attention.default: translate_packed,
    }


def _define(name: str, schema: OpSchema, attributes: str) -> None:
    operands = [f"Tensor {row.name}" for row in schema.required]
    arguments = ", ".join([*operands, *([attributes] if attributes else [])])
    results = ", ".join("Tensor" for _ in schema.outputs)
    torch.library.define(f"tightrope::{name}", f"({arguments}) -> ({results})")


def _node(schema: OpSchema) -> Callable[..., Any]:
    """Emits one node of an own op."""
    formal, attribute = onnx.defs.OpSchema.FormalParameter, onnx.defs.OpSchema.Attribute
    kinds = onnx.defs.OpSchema.AttrType
    definition = onnx.defs.OpSchema(
        schema.name,
        OWN_DOMAIN,
        OWN_OPSET,
        inputs=[formal(row.name, _ONNX[row.dtype]) for row in schema.required],
        outputs=[formal(f"{row.name}_out", _ONNX[row.dtype]) for row in schema.outputs],
        type_constraints=[("T", ["tensor(float)", "tensor(float16)"], "")],
        attributes=[
            attribute(
                name, kinds.FLOAT if isinstance(default, float) else kinds.INT, "", required=False
            )
            for name, default in schema.attributes.items()
        ],
    )
    opset = onnxscript_values.Opset(OWN_DOMAIN, OWN_OPSET)
    emit: Callable[..., Any] = onnxscript_values.Op(opset, schema.name, definition)
    return emit
