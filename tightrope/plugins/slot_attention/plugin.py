"""`SlotAttention` as a plugin: one token a call takes two kernels, more of them three.

One token: slots are attended to in splits, whose shares are combined; the combining kernel also
knows the mass that each slot received, and so updates scores and gives a slot up. Several tokens:
attending leaves each query's logarithm of its sum, from which mass is summed, and then who leaves
and where new tokens go is decided. Kernels that read slots have a variant for those in int8.
"""

from __future__ import annotations

from typing import Any

from tightrope.arrays import Array
from tightrope.interface.onnx import FLOAT
from tightrope.interface.tensors import SLOT_KEY_SCALE
from tightrope.plugins.cases import Case
from tightrope.plugins.description import Buffer, Description, Form, Limit, Step
from tightrope.plugins.slot_attention import body
from tightrope.plugins.slot_attention.cases import cases
from tightrope.plugins.slot_attention.reference import slot_attention
from tightrope.plugins.slot_attention.schema import SCHEMA

SPLIT = 256
"""Slots that one program attends to."""
_ONE, _MORE = ("S", 1, 1), ("S", 2, 1 << 30)


def _reference(*inputs: Array, **attributes: Any) -> tuple[Array, ...]:
    out, *rest = slot_attention(*inputs, **attributes)
    return out.astype(inputs[0].dtype), *rest


def _form(form: body.Form) -> Any:
    def emit(op: Any, values: Any, case: Case) -> Any:
        query, key = case.inputs[:2]
        assert query is not None and key is not None
        heads, head_dim = query.shape[1], query.shape[3]
        fixed = body.Fixed(heads, key.shape[1], head_dim, FLOAT, **case.attributes)
        return body.body(op, [value for value in values if value is not None], fixed, form)

    return emit


def _length(case: Case) -> int:
    assert case.inputs[0] is not None
    return int(case.inputs[0].shape[2])


def _nothing_leaves(case: Case) -> bool:
    position, budget = case.inputs[6], case.inputs[8]
    assert position is not None and budget is not None
    most = int((position >= 0).sum(-1).max()) + _length(case)
    return bool(most <= min(int(budget.min()), position.shape[2]))


PLUGIN = Description(
    schema=SCHEMA,
    reference=_reference,
    cases=cases,
    forms=(
        Form(name="general", emit=_form("general")),
        Form(name="step", emit=_form("step"), takes=lambda case: _length(case) == 1),
        Form(name="append", emit=_form("append"), takes=_nothing_leaves),
    ),
    limits=(
        Limit(what="head_dim", size="D", least=16, most=256, multiple=16),
        Limit(what="the number of query heads a KV head", size="Hq//Hkv", least=1, most=8),
        Limit(what="pool_kernel", size="pool_kernel", least=1, most=31),
    ),
    sizes={
        "G": "Hq//Hkv",
        "splits": f"(U + {SPLIT})//{SPLIT}",  # one at least, for the new token
    },
    buffers=(
        Buffer(name="shares", nbytes="4*N*Hq*splits*D"),
        Buffer(name="peaks", nbytes="8*N*Hq*splits"),
        Buffer(name="logits", nbytes="4*N*Hq*U"),
        Buffer(name="sums", nbytes="4*N*Hq*S"),
        Buffer(name="mass", nbytes="4*N*Hkv*(C + S)"),
        Buffer(name="norms", nbytes="4*N*Hkv*S"),
        Buffer(name="ranks", nbytes="4*N*Hkv*(C + S)"),
        Buffer(name="places", nbytes="4*N*Hkv*S"),
    ),
    steps=(
        Step(kernel="slot_attention_step_d{D}", only=_ONE, lacking=SLOT_KEY_SCALE),
        Step(kernel="slot_attention_step_int8_d{D}", only=_ONE, given=SLOT_KEY_SCALE),
        Step(kernel="slot_attention_combine_d{D}", only=_ONE),
        Step(kernel="slot_attention_prefill_d{D}", only=_MORE, lacking=SLOT_KEY_SCALE),
        Step(kernel="slot_attention_prefill_int8_d{D}", only=_MORE, given=SLOT_KEY_SCALE),
        Step(kernel="slot_attention_mass_d{D}", only=_MORE, lacking=SLOT_KEY_SCALE),
        Step(kernel="slot_attention_mass_int8_d{D}", only=_MORE, given=SLOT_KEY_SCALE),
        Step(kernel="slot_attention_place", only=_MORE),
    ),
)
