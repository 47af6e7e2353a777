"""`SlotAttention` in standard ONNX operators, cut as the reference is: attend, score, leave, place.

Four forms of one rule:

general   any S: what leaves is found by ranking slots and new tokens together
step      S = 1: at most one slot is given up
append    any S for which every row has enough empty slots: nothing leaves inside the call, and
          whoever owns the slots trims them afterwards, with the same ranking
either    any S: append where there are enough empty slots, else general, decided in the call; it
          is what ONNX Runtime reads prompts with, and attends block by block

The operators are those that TensorRT 10.3 parses, but for the last form; its TopK bounds C + S of
the general form. Attending is done layer by layer; the rest may be done once for all layers, whose
arrays then have a leading axis L.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tightrope.plugins.slot_attention.body_attend import attend
from tightrope.plugins.slot_attention.body_call import MASKED, Common, Fixed, Form, capped, shared
from tightrope.plugins.slot_attention.body_place import scored, settle
from tightrope.plugins.slot_attention.body_slots import from_int8
from tightrope.plugins.slot_attention.scores import DEFAULT_SCORE

if TYPE_CHECKING:
    import onnx_ir as ir

    from tightrope.plugins.builder import OpBuilder

__all__ = [
    "MASKED",
    "Common",
    "Fixed",
    "Form",
    "attend",
    "body",
    "capped",
    "from_int8",
    "scored",
    "settle",
    "shared",
]


def body(
    op: OpBuilder, operands: list[ir.Value], fixed: Fixed, form: Form, score: str = DEFAULT_SCORE
) -> tuple[ir.Value, ...]:
    """The whole op in one form: inputs and outputs as in the schema.

    Scales are there where slots are int8, else left out.
    """
    query, key, value, slot_key, slot_value, slot_score, slot_position = operands[:7]
    query_position, kv_budget, policy, query_reach, *scales = operands[7:]
    if scales:
        slot_key, slot_value = (
            from_int8(op, codes, scale, fixed.activation)
            for codes, scale in zip((slot_key, slot_value), scales, strict=True)
        )
    common = shared(op, (query_position, query_reach), policy, fixed.kv_heads)
    rows = [query, key, value, slot_key, slot_value, slot_position]
    out, mass = attend(op, rows, common.counted, fixed, common, form)
    old, new = scored(op, (mass, key, slot_score, slot_key), fixed, common, form, score)
    settled = settle(
        op, old, new, (slot_score, slot_position, op.Unsqueeze(kv_budget, [1])), common, form
    )
    return out, *settled
