"""DivPrune: the tokens that are least alike, by max-min distance; no attention, no text.

The first token is the one whose nearest neighbour is farthest away; each further one is farthest
from everything chosen so far. Distance is 1 - cosine of the projected tokens. The paper spreads
one budget over all visual tokens of a prompt; here each image has its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tightrope.arrays import Floats
from tightrope.export.selectors.selector import Context, Given, Image, from_score
from tightrope.export.selectors.steps import cosines, emit_cosines, emit_float, emit_take
from tightrope.interface.onnx import FLOAT
from tightrope.interface.tensors import KEEP_RAMP, VISUAL_EMBEDS

if TYPE_CHECKING:
    import onnx_ir as ir

    from tightrope.plugins.builder import OpBuilder

BEHIND = np.float32(-2)
"""Below every cosine."""
CHOSEN = np.float32(2)
"""Above every cosine: a chosen token is alike itself, and never the farthest."""


def score(image: Image, keep: int) -> Floats:
    """How alike each token is to the nearest chosen one, [V]; `CHOSEN` for these themselves."""
    alike = cosines(image.visual_embeds)
    farthest = np.where(np.eye(len(alike), dtype=bool), BEHIND, alike).max(1)
    closest = np.full(len(alike), BEHIND)
    for _ in range(keep):
        pick = int(farthest.argmin())
        closest = np.maximum(closest, alike[pick])
        closest[pick] = CHOSEN
        farthest = closest
    return closest


def emit(op: OpBuilder, given: Given, context: Context) -> ir.Value:
    """One round of a Loop per further token."""
    alike = emit_cosines(op, emit_float(op, given[VISUAL_EMBEDS], context.activation))  # [I,V,V]
    place = op.iota(op.scalar_dim(alike, 1))
    itself = op.Equal(op.Unsqueeze(place, [1]), op.Unsqueeze(place, [0]))
    farthest = op.ReduceMax(op.Where(itself, BEHIND, alike), [2], keepdims=0)  # [I,V]
    closest = _choose(op, alike, farthest, op.Expand(BEHIND, op.Shape(farthest)))
    (closest,) = op.loop(
        op.Squeeze(op.Sub(op.dim(given[KEEP_RAMP], 0), [1])),
        [(closest, FLOAT)],
        lambda inner, _, state: [_choose(inner, alike, state[0], state[0])],
    )
    return closest


def _choose(op: OpBuilder, alike: ir.Value, farthest: ir.Value, closest: ir.Value) -> Any:
    """`closest` after one more choice."""
    pick = op.ArgMin(farthest, axis=1, keepdims=1)  # [I,1]
    closest = op.Max(closest, op.Squeeze(emit_take(op, alike, pick), [1]))
    return op.ScatterElements(closest, pick, op.Expand(CHOSEN, op.Shape(pick)), axis=1)


DIVPRUNE = from_score(
    name="divprune",
    paper=(
        "DivPrune: Diversity-based Visual Token Pruning for Large Multimodal Models, "
        "Alvar et al. 2025, arXiv:2503.02175"
    ),
    default_keep="9.8%",
    score=score,
    emit=emit,
)
