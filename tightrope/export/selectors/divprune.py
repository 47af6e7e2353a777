"""DivPrune: the tokens that are least alike, by max-min distance; no attention, no text.

The first token is the one whose nearest neighbour is farthest away; each further one is farthest
from everything chosen so far. Distance is 1 - cosine of the projected tokens. The paper spreads
one budget over all visual tokens of a prompt; here each image has its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tightrope.export.selectors.selector import Context, Selector
from tightrope.export.selectors.steps import (
    FLOAT,
    Array,
    emit_best,
    emit_float,
    emit_take,
    emit_unit,
    unit,
)

if TYPE_CHECKING:
    import onnx_ir as ir

    from tightrope.plugins.builder import OpBuilder

BEHIND = np.float32(-2)
"""Below every cosine."""
CHOSEN = np.float32(2)
"""Above every cosine: a chosen token is alike itself, and never the farthest."""


def reference(visual_embeds: Array, keep: int) -> npt.NDArray[np.int64]:
    """Kept indices [K], ascending, of one image's tokens [V,E]."""
    rows = unit(visual_embeds)
    alike = rows @ rows.T
    farthest = np.where(np.eye(len(rows), dtype=bool), BEHIND, alike).max(1)
    closest = np.full(len(rows), BEHIND)
    for _ in range(keep):
        pick = int(farthest.argmin())
        closest = np.maximum(closest, alike[pick])
        closest[pick] = CHOSEN
        farthest = closest
    return np.flatnonzero(closest == CHOSEN)


def body(op: OpBuilder, inputs: dict[str, ir.Value], context: Context) -> tuple[ir.Value, ir.Value]:
    """The same for every image of a call, one round of a Loop per further token."""
    embeds, keep_ramp = inputs["visual_embeds"], inputs["keep_ramp"]
    rows = emit_unit(op, emit_float(op, embeds, context))
    alike = op.MatMul(rows, op.Transpose(rows, perm=[0, 2, 1]))  # [I,V,V]
    place = op.iota(op.Squeeze(op.dim(embeds, 1)))
    itself = op.Equal(op.Unsqueeze(place, [1]), op.Unsqueeze(place, [0]))
    farthest = op.ReduceMax(op.Where(itself, BEHIND, alike), [2], keepdims=0)  # [I,V]
    closest = _choose(op, alike, farthest, op.Expand(BEHIND, op.Shape(farthest)))
    (closest,) = op.loop(
        op.Squeeze(op.Sub(op.dim(keep_ramp, 0), [1])),
        [(closest, FLOAT)],
        lambda inner, _, state: [_choose(inner, alike, state[0], state[0])],
    )
    index = emit_best(op, closest, keep_ramp)
    return index, emit_take(op, embeds, index)


def _choose(op: OpBuilder, alike: ir.Value, farthest: ir.Value, closest: ir.Value) -> Any:
    """How alike each token is to the nearest chosen one, after one more choice."""
    pick = op.ArgMin(farthest, axis=1, keepdims=1)  # [I,1]
    closest = op.Max(closest, op.Squeeze(emit_take(op, alike, pick), [1]))
    return op.ScatterElements(closest, pick, op.Expand(CHOSEN, op.Shape(pick)), axis=1)


DIVPRUNE = Selector(
    name="divprune",
    paper=(
        "DivPrune: Diversity-based Visual Token Pruning for Large Multimodal Models, "
        "Alvar et al. 2025, arXiv:2503.02175"
    ),
    default_keep="9.8%",
    body=body,
    reference=reference,
)
