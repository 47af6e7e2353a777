"""`SlotAttention`: attend over slots and new tokens, then say which slot each new token takes.

One rule for every S: attend over the occupied slots and the new tokens, causally by ordinal;
update the scores of both, once per call; keep the best `budget` of both. The op only reads the
slots: it returns `target`, and whoever owns the slots writes there.

`slot_key` and `slot_value` may be shorter than `slot_score`: slots past their end are empty, so
that a call on a fresh cache does not pay for its capacity.
"""

from tightrope.plugins.schema import Argument, OpSchema

SCHEMA = OpSchema(
    name="SlotAttention",
    inputs=(
        Argument(name="query", dtype="T", axes=("N", "Hq", "S", "D")),
        Argument(name="key", dtype="T", axes=("N", "Hkv", "S", "D")),
        Argument(name="value", dtype="T", axes=("N", "Hkv", "S", "D")),
        Argument(name="slot_key", dtype="T", axes=("N", "Hkv", "U", "D")),
        Argument(name="slot_value", dtype="T", axes=("N", "Hkv", "U", "D")),
        Argument(name="slot_score", dtype="float32", axes=("N", "Hkv", "C")),
        Argument(name="slot_position", dtype="int32", axes=("N", "Hkv", "C")),
        Argument(name="query_position", dtype="int32", axes=("N", "S")),
        Argument(name="budget", dtype="int64", axes=("1",)),
        Argument(name="policy", dtype="float32", axes=("8",)),
    ),
    outputs=(
        Argument(name="out", dtype="T", axes=("N", "Hq", "S", "D")),
        Argument(name="target", dtype="int32", axes=("N", "Hkv", "S")),
        Argument(name="slot_score", dtype="float32", axes=("N", "Hkv", "C")),
        Argument(name="slot_position", dtype="int32", axes=("N", "Hkv", "C")),
    ),
    # softcap 0 and window 0 mean none.
    attributes={"scale": 1.0, "softcap": 0.0, "window": 0, "pool_kernel": 5},
)
