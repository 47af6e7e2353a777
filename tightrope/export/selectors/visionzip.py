"""VisionZip: the tokens that CLS attends to most, the rest merged into a few context tokens.

Of K tokens one is CLS itself, 10 in 64 are context, the others dominant. A context token is its
target plus the mean of the tokens assigned to it (a sum, not an average), so merging happens
before the projector. It keeps its target's place; CLS takes the place of the first token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tightrope.export.selectors.selector import Choice, Context, Given, Image, Selector
from tightrope.export.selectors.steps import (
    emit_ascending,
    emit_float,
    emit_patches,
    emit_ramp,
    emit_ranking,
    emit_take,
    emit_unit,
    ranking,
    unit,
)
from tightrope.interface.onnx import FLOAT, INT64
from tightrope.interface.tensors import (
    CLS_ATTENTION,
    KEEP_RAMP,
    TOWER_KEYS,
    TOWER_STATES,
    VISUAL_EMBEDS,
)

if TYPE_CHECKING:
    import onnx_ir as ir

    from tightrope.plugins.builder import OpBuilder

CONTEXT, OF = 10, 64
"""Context tokens among those kept, as in the paper's 54 + 10."""
NOWHERE = np.float32(1e9)
"""Behind every place: a row that is not kept."""


def reference(image: Image, keep: int) -> Choice:
    """The choice for one image."""
    cls, patches = image.tower_states[:1], image.tower_states[1:]
    num_context = keep * CONTEXT // OF
    order = ranking(image.cls_attention)
    dominant = order[: keep - num_context - 1]
    rest = np.sort(order[len(dominant) :])
    stride = len(rest) // max(num_context, 1)
    targets = rest[: stride * num_context : stride]
    merged = patches[targets].copy()
    if num_context:
        others = np.setdiff1d(rest, targets)
        keys = unit(image.tower_keys)
        nearest = (keys[others] @ keys[targets].T).argmax(1)
        for i in range(num_context):
            assigned = others[nearest == i]
            if len(assigned):
                merged[i] += patches[assigned].mean(0)
    place = np.concatenate([[-1], targets, dominant]).astype(np.int64)
    states = np.concatenate([cls, merged, patches[dominant]])
    ascending = np.argsort(place)
    return Choice(np.maximum(place[ascending], 0), image.project(states[ascending]))


def body(op: OpBuilder, given: Given, context: Context) -> tuple[ir.Value, ir.Value]:
    """The same for every image of a call.

    Only CLS and the context tokens go through the projector: the dominant ones are visual_embeds
    already. No array has length 0: where no context token is wanted, one is made and left out.
    """
    attention = given[CLS_ATTENTION]
    states = emit_float(op, given[TOWER_STATES], context.activation)
    keys = emit_unit(op, emit_float(op, given[TOWER_KEYS], context.activation))
    keep, length = op.dim(given[KEEP_RAMP], 0), op.dim(attention, 1)
    num_context = op.Div(op.Mul(keep, [CONTEXT]), [OF])
    num_dominant = op.Sub(keep, op.Add(num_context, [1]))
    num_rest, num_rows = op.Sub(length, num_dominant), op.Max(num_context, [1])

    order = emit_ranking(op, attention)  # [I,V]
    place = op.Cast(order, to=FLOAT)
    dominant = op.Less(op.iota(op.Squeeze(length)), num_dominant)
    rest = emit_ascending(op, op.Slice(place, num_dominant, length, [1]))
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
    merged = op.MatMul(mix, emit_patches(op, states))
    made = op.Concat(op.Slice(states, [0], [1], [1]), merged, axis=1)  # [I,1+W,Dv]
    made = made if context.activation == FLOAT else op.Cast(made, to=context.activation)

    # All rows that could be kept, with their places; the K foremost are.
    table = op.Concat(context.project(op, made), given[VISUAL_EMBEDS], axis=1)  # [I,1+W+V,E]
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
    default_keep="11.1%",
    signals=(CLS_ATTENTION, TOWER_KEYS, TOWER_STATES),
    merges=True,
    body=body,
    reference=reference,
)
