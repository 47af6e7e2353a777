"""`SlotAttention`: attend over slots and new tokens, then say which slot each new token takes.

One rule for every S: attend over the occupied slots and the new tokens, causally by ordinal;
update the scores of both, once per call; keep the best `kv_budget` of both. The op only reads the
slots: it returns `target`, and whoever owns the slots writes there.

`slot_key` and `slot_value` may be shorter than `slot_score`: slots past their end are empty, so
that a call on a fresh cache does not pay for its capacity.

`query_reach` is the newest ordinal that each token attends to: `query_position` itself, or, where
an image sees itself whole, the ordinal of its last token. That one must be in the same call.

Slots may be int8 with a scale for each token and KV head, `slot_key_scale` and `slot_value_scale`:
what a slot holds are its numbers times its scale. Both scales are given or neither.
"""

from tightrope.interface import tensors
from tightrope.interface.tensors import POLICY_NUMBERS, TensorSpec
from tightrope.plugins.schema import OpSchema

SCHEMA = OpSchema(
    name="SlotAttention",
    inputs=(
        TensorSpec("query", "activation", ("N", "Hq", "S", "D")),
        TensorSpec(tensors.KEY, "activation", ("N", "Hkv", "S", "D")),
        TensorSpec(tensors.VALUE, "activation", ("N", "Hkv", "S", "D")),
        TensorSpec(tensors.SLOT_KEY, "activation", ("N", "Hkv", "U", "D")),
        TensorSpec(tensors.SLOT_VALUE, "activation", ("N", "Hkv", "U", "D")),
        TensorSpec(tensors.SLOT_SCORE, "float32", ("N", "Hkv", "C")),
        TensorSpec(tensors.SLOT_POSITION, "int32", ("N", "Hkv", "C")),
        TensorSpec(tensors.QUERY_POSITION, "int32", ("N", "S")),
        TensorSpec(tensors.KV_BUDGET, "int64", ("Hkv",)),
        TensorSpec(tensors.POLICY, "float32", (POLICY_NUMBERS,)),
        TensorSpec(tensors.QUERY_REACH, "int32", ("N", "S")),
        TensorSpec(tensors.SLOT_KEY_SCALE, "float32", ("N", "Hkv", "U", 1)),
        TensorSpec(tensors.SLOT_VALUE_SCALE, "float32", ("N", "Hkv", "U", 1)),
    ),
    outputs=(
        TensorSpec("out", "activation", ("N", "Hq", "S", "D")),
        TensorSpec(tensors.TARGET, "int32", ("N", "Hkv", "S")),
        TensorSpec(tensors.SLOT_SCORE, "float32", ("N", "Hkv", "C")),
        TensorSpec(tensors.SLOT_POSITION, "int32", ("N", "Hkv", "C")),
    ),
    # softcap 0 and window 0 mean none.
    attributes={"scale": 1.0, "softcap": 0.0, "window": 0, "pool_kernel": 5},
    optional=(tensors.SLOT_KEY_SCALE, tensors.SLOT_VALUE_SCALE),
    scaled={
        tensors.SLOT_KEY: tensors.SLOT_KEY_SCALE,
        tensors.SLOT_VALUE: tensors.SLOT_VALUE_SCALE,
    },
)
