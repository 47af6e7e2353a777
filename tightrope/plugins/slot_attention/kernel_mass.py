"""Attention that slots and new tokens received from the queries that count, and norms of new keys.

A program for each tile of slots, then of new tokens. Weights come anew from keys and from each
query's sum: those of the last queries alone cost a fraction of the prefill. Where attention counts
for nothing, no query is read.
"""

from __future__ import annotations

import triton
import triton.language as tl

from tightrope.interface.tensors import SLOT_KEY, SLOT_KEY_SCALE
from tightrope.plugins.kernels.source import KernelSource
from tightrope.plugins.kernels.tiles import capped, visible
from tightrope.plugins.slot_attention.kernel_step import HEAD_DIMS

COLUMNS = 64
"""Slots or new tokens of a program."""


@triton.jit  # type: ignore[untyped-decorator]
def slot_attention_mass(  # type: ignore[no-untyped-def]
    query,
    key,
    slot_key,
    slot_position,
    query_position,
    query_reach,
    policy,
    sums,
    mass,
    norms,
    scale,
    softcap,
    window,
    Hq,
    Hkv,
    S,
    U,
    C,
    slot_key_scale,
    D: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """mass: float32 [N,Hkv,C+S], of the first U slots and of new tokens. norms: [N,Hkv,S].

    slot_key_scale: None where slots hold floats.
    """
    WIDTH: tl.constexpr = triton.next_power_of_2(D)
    head, row = tl.program_id(1), tl.program_id(2)
    group, lane = Hq // Hkv, (row * Hkv + head).to(tl.int64)
    column = tl.arange(0, WIDTH)
    width = (column < D)[None, :]
    tiles = (U + COLUMNS - 1) // COLUMNS
    fresh = tl.program_id(0) >= tiles
    here = (tl.program_id(0) - tl.where(fresh, tiles, 0)) * COLUMNS + tl.arange(0, COLUMNS)
    place = here[:, None] * D + column[None, :]
    if fresh:
        inside = here < S
        ordinal = tl.load(query_position + row * S + here, mask=inside, other=-1)
        k = tl.load(key + lane * S * D + place, mask=inside[:, None] & width, other=0.0)
        wide = k.to(tl.float32)
        tl.store(norms + lane * S + here, tl.sqrt(tl.sum(wide * wide, 1)), mask=inside)
        if slot_key_scale is not None:
            factor = tl.full([COLUMNS], 1.0, tl.float32)
    else:
        inside = here < U
        ordinal = tl.load(slot_position + lane * C + here, mask=inside, other=-1)
        taken = (ordinal >= 0)[:, None] & width
        k = tl.load(slot_key + lane * U * D + place, mask=taken, other=0).to(key.dtype.element_ty)
        if slot_key_scale is not None:
            held = inside & (ordinal >= 0)
            factor = tl.load(slot_key_scale + lane * U + here, mask=held, other=0.0)
    count = 0
    for start in range(0, S, BLOCK):
        token = start + tl.arange(0, BLOCK)
        position = tl.load(query_position + row * S + token, mask=token < S, other=-1)
        count += tl.sum((position >= 0).to(tl.int32), 0)
    last = tl.load(policy + 4).to(tl.int32)
    attention = tl.load(policy + 1)
    received = tl.zeros([COLUMNS], tl.float32)
    before = 0
    for start in range(0, tl.where(attention != 0, S, 0), BLOCK):
        token = start + tl.arange(0, BLOCK)
        position = tl.load(query_position + row * S + token, mask=token < S, other=-1)
        reach = tl.load(query_reach + row * S + token, mask=token < S, other=-1)
        nth = before + tl.cumsum((position >= 0).to(tl.int32), 0)
        counted = (position >= 0) & ((last == 0) | (nth > count - last))
        before += tl.sum((position >= 0).to(tl.int32), 0)
        seen = visible(ordinal[:, None], position[None, :], reach[None, :], window)
        seen = seen & counted[None, :]
        if tl.max(counted.to(tl.int32), 0) > 0:
            for member in range(0, group):
                own = (lane * group + member) * S
                at = query + own * D + (token[:, None] * D + column[None, :])
                q = tl.load(at, mask=counted[:, None] & width, other=0.0)
                total = tl.load(sums + own + token, mask=counted, other=float("inf"))
                product = tl.dot(k, tl.trans(q))
                if slot_key_scale is not None:
                    product *= factor[:, None]
                logit = capped(product * scale, softcap)
                weight = tl.exp(tl.where(seen, logit, -float("inf")) - total[None, :])
                received += tl.sum(tl.where(seen, weight, 0.0), 1)
    to = lane * (C + S) + here + tl.where(fresh, C, 0)
    tl.store(mass + to, received, mask=inside)


SOURCE = KernelSource(
    name="slot_attention_mass_d{D}",
    function=slot_attention_mass,
    signature={
        "query": "*fp16",
        "key": "*fp16",
        "slot_key": "*fp16",
        "slot_position": "*i32",
        "query_position": "*i32",
        "query_reach": "*i32",
        "policy": "*fp32",
        "sums": "*fp32",
        "mass": "*fp32",
        "norms": "*fp32",
        "scale": "fp32",
        "softcap": "fp32",
        "window": "i32",
        "Hq": "i32",
        "Hkv": "i32",
        "S": "i32",
        "U": "i32",
        "C": "i32",
    },
    sizes={"D": HEAD_DIMS},
    constants={"COLUMNS": COLUMNS, "BLOCK": 32, SLOT_KEY_SCALE: None},
    grid=(f"(U + {COLUMNS - 1})//{COLUMNS} + (S + {COLUMNS - 1})//{COLUMNS}", "Hkv", "N"),
    warps=8,
    aligned=(SLOT_KEY,),
)
