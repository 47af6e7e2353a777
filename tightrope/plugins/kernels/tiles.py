"""What several kernels share: who is seen, softmax in parts, a soft cap, the n-th smallest key."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def capped(logit, softcap):  # type: ignore[no-untyped-def]
    """tanh(logit / softcap) * softcap; softcap 0: as it is."""
    if softcap > 0:
        logit = (1 - 2 / (tl.exp(2 * logit / softcap) + 1)) * softcap
    return logit


@triton.jit
def visible(ordinal, position, reach, window):  # type: ignore[no-untyped-def]
    """Whether queries at `position` that reach to `reach` see what has `ordinal`, -1: nothing.

    window: the newest tokens that are seen, 0: all.
    """
    seen = (ordinal >= 0) & (ordinal <= reach)
    return seen & ((window == 0) | (position - ordinal < window))


@triton.jit
def attended(logit, value, peak, total, out):  # type: ignore[no-untyped-def]
    """peak and total [R] and out [R,D] of a softmax once logits [R,B] and values [B,D] joined it.

    A logit of -inf is not seen; the peak of a row that saw nothing is -inf.
    """
    higher = tl.maximum(peak, tl.max(logit, 1))
    base = tl.where(higher == -float("inf"), 0.0, higher)
    weight = tl.exp(logit - base[:, None])
    kept = tl.exp(peak - base)
    total = total * kept + tl.sum(weight, 1)
    out = out * kept[:, None] + tl.dot(weight.to(value.dtype), value)
    return higher, total, out


@triton.jit
def ordered(number):  # type: ignore[no-untyped-def]
    """int32 in the order of float32 `number`; both zeros are one."""
    bits = (number + 0.0).to(tl.int32, bitcast=True)
    return tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


@triton.jit  # type: ignore[untyped-decorator]
def nth_smallest(keys, count, nth, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """The nth smallest, from 1, of int32 keys [count] in memory, and how many are smaller.

    Digit by digit of eight bits, from the highest: a count of each digit's values a turn.
    """
    found, rest = nth * 0, nth
    digits = tl.arange(0, 256)
    for turn in tl.static_range(4):
        shift = 24 - 8 * turn
        counts = tl.zeros([256], tl.int32)
        for start in range(0, count, BLOCK):
            at = start + tl.arange(0, BLOCK)
            inside = at < count
            key = tl.load(keys + at, mask=inside, other=0)
            digit = (key >> shift) & 255
            if turn == 0:
                digit = digit ^ 128  # negative ones are the smallest
            else:
                inside = inside & ((key >> (shift + 8)) == (found >> (shift + 8)))
            counts += tl.histogram(digit, 256, mask=inside)
        chosen = tl.sum((tl.cumsum(counts, 0) < rest).to(tl.int32), 0)
        rest -= tl.sum(tl.where(digits < chosen, counts, 0), 0)
        if turn == 0:
            chosen = chosen ^ 128
        found = found | (chosen << shift)
    return found, nth - rest
