"""VisionZip: the tokens that CLS attends to most, the rest merged into a few context tokens.

Of K tokens one is CLS itself, 10 in 64 are context, the others dominant. A context token is its
target plus the mean of the tokens assigned to it (a sum, not an average), so merging happens
before the projector. It keeps its target's place; CLS takes the place of the first token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tightrope.export.selectors.selector import Context, Selector
from tightrope.export.selectors.steps import (
    FLOAT,
    INT64,
    Array,
    emit_float,
    emit_ramp,
    emit_take,
    emit_unit,
    unit,
)

if TYPE_CHECKING:
    import onnx_ir as ir

    from tightrope.plugins.builder import OpBuilder

CONTEXT, OF = 10, 64
"""Context tokens among those kept, as in the paper's 54 + 10."""
END = np.iinfo(np.int64).max
NOWHERE = np.float32(1e9)
"""Behind every place: a row that is not kept."""


def reference(
    cls_attention: Array, tower_states: Array, tower_keys: Array, keep: int
) -> tuple[npt.NDArray[np.int64], Array]:
    """Places [K], ascending, and tower states [K,Dv] of one image.

    cls_attention [V], tower_states [1+V,Dv] with CLS first, tower_keys [V,dh]; keep <= V.
    """
    cls, patches = tower_states[:1], tower_states[1:]
    num_context = keep * CONTEXT // OF
    order = np.argsort(-cls_attention, kind="stable")
    dominant = order[: keep - num_context - 1]
    rest = np.sort(order[len(dominant) :])
    stride = len(rest) // max(num_context, 1)
    targets = rest[: stride * num_context : stride]
    merged = patches[targets].copy()
    if num_context:
        others = np.setdiff1d(rest, targets)
        keys = unit(tower_keys)
        nearest = (keys[others] @ keys[targets].T).argmax(1)
        for i in range(num_context):
            assigned = others[nearest == i]
            if len(assigned):
                merged[i] += patches[assigned].mean(0)
    place = np.concatenate([[-1], targets, dominant]).astype(np.int64)
    states = np.concatenate([cls, merged, patches[dominant]])
    ascending = np.argsort(place)
    return np.maximum(place[ascending], 0), states[ascending]


def body(op: OpBuilder, inputs: dict[str, ir.Value], context: Context) -> tuple[ir.Value, ir.Value]:
    """The same for every image of a call.

    Only CLS and the context tokens go through the projector: the dominant ones are visual_embeds
    already. No array has length 0: where no context token is wanted, one is made and left out.
    """
    attention, embeds, keep_ramp = (
        inputs[name] for name in ("cls_attention", "visual_embeds", "keep_ramp")
    )
    states = emit_float(op, inputs["tower_states"], context)
    keys = emit_unit(op, emit_float(op, inputs["tower_keys"], context))
    keep, length = op.dim(keep_ramp, 0), op.dim(attention, 1)
    num_context = op.Div(op.Mul(keep, [CONTEXT]), [OF])
    num_dominant = op.Sub(keep, op.Add(num_context, [1]))
    num_rest, num_rows = op.Sub(length, num_dominant), op.Max(num_context, [1])

    _, order = op.TopK(attention, length, outputs=2, axis=1, largest=1, sorted=1)  # [I,V]
    place = op.Cast(order, to=FLOAT)
    dominant = op.Less(op.iota(op.Squeeze(length)), num_dominant)
    rest = op.Slice(place, num_dominant, [END], [1])
    rest, _ = op.TopK(rest, num_rest, outputs=2, axis=1, largest=0, sorted=1)
    rows = op.iota(op.Squeeze(num_rows))  # [W], the context tokens
    stops = op.Mul(rows, op.Div(num_rest, num_rows))
    targets = op.Gather(rest, stops, axis=1)  # [I,W] float32

    # What is neither dominant nor a target goes to the target with the most similar key.
    to_rest = op.Where(dominant, np.float32(0), np.float32(1))
    free = op.ScatterElements(place, order, op.Expand(to_rest, op.Shape(order)), axis=1)
    columns = op.Unsqueeze(emit_ramp(op, length), [0, 1])  # [1,1,V]
    is_target = op.Cast(op.Equal(op.Unsqueeze(targets, [2]), columns), to=FLOAT)  # [I,W,V]
    free = op.Sub(free, op.ReduceSum(is_target, [1], keepdims=0))  # [I,V]
    alike = op.MatMul(op.MatMul(is_target, keys), op.Transpose(keys, perm=[0, 2, 1]))
    nearest = op.ArgMax(alike, axis=1, keepdims=1)  # [I,1,V]
    joins = op.Cast(op.Equal(nearest, op.Unsqueeze(rows, [0, 2])), to=FLOAT)
    joins = op.Mul(joins, op.Unsqueeze(free, [1]))  # [I,W,V]
    count = op.Max(op.ReduceSum(joins, [2], keepdims=1), np.float32(1))
    mix = op.Add(is_target, op.Div(joins, count))
    merged = op.MatMul(mix, op.Slice(states, [1], [END], [1]))
    made = op.Concat(op.Slice(states, [0], [1], [1]), merged, axis=1)  # [I,1+W,Dv]
    made = made if context.dtype == FLOAT else op.Cast(made, to=context.dtype)

    # All rows that could be kept, with their places; the K foremost are.
    table = op.Concat(context.project(op, made), embeds, axis=1)  # [I,1+W+V,E]
    first = op.Sub(op.ReduceMin(place, [1], keepdims=1), np.float32(1))  # [I,1] of -1
    wanted = op.Less(rows, num_context)
    at_dominant = op.Where(dominant, place, NOWHERE)
    at_dominant = op.ScatterElements(place, order, at_dominant, axis=1)
    places = op.Concat(first, op.Where(wanted, targets, NOWHERE), at_dominant, axis=1)
    places, chosen = op.TopK(places, keep, outputs=2, axis=1, largest=0, sorted=1)
    index = op.Cast(op.Max(places, np.float32(0)), to=INT64)
    return index, emit_take(op, table, chosen)


VISIONZIP = Selector(
    name="visionzip",
    paper=(
        "VisionZip: Longer is Better but Not Necessary in Vision Language Models, "
        "Yang et al. 2024, arXiv:2412.04467"
    ),
    signals=("cls_attention", "tower_keys", "tower_states"),
    merges=True,
    default_keep="11.1%",
    body=body,
    reference=reference,
)
