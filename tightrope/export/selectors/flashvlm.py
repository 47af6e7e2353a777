"""FlashVLM: half the tokens by saliency and likeness to the question, half by diversity.

Relevance is the cosine of projected tokens and the question's embeddings, sharpened until few
tokens stand out; it is fused with CLS attention in the log domain. The other half comes from
what is left: in every round tokens at even rank that resemble one at odd rank most are dropped.

The paper drops 8 a round, some 60 rounds one after the other. Here `ROUNDS` rounds drop as many
as they must. Which tokens stay hangs on the parity of ranks, so that any other schedule keeps
others; how little they resemble each other is what the two share. The text is the question's
embeddings, and the gate by their length acts on raw lengths.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tightrope.export.selectors.selector import Context, Selector
from tightrope.export.selectors.steps import (
    FLOAT,
    SHORTEST,
    Array,
    emit_best,
    emit_float,
    emit_ramp,
    emit_take,
    emit_unit,
    unit,
)

if TYPE_CHECKING:
    import onnx_ir as ir

    from tightrope.plugins.builder import OpBuilder

ETA = 0.5
"""Weight of the question against saliency."""
TEXT_TEMPERATURE, TOKEN_TEMPERATURE = np.float32(0.05), np.float32(0.01)
SHARPNESS = np.float32(2.5)
PER_MILLE_OUTSTANDING = 5
DAMPING = np.float32(0.1)
"""Relevance of all but the outstanding tokens is multiplied by this."""
FLOOR = np.float32(1e-6)
DROPPED_A_ROUND = 8
ROUNDS = 24
"""As diverse as the published loop: on the towers of 12 test scenes, 64 of 576 tokens kept, the
mean cosine to the nearest kept token is .949 (published .946, 12 rounds .958, chance .967)."""
OUT = np.float32(-1)
FAR = np.float32(-4)
"""Added to a cosine it ends below every other."""
END = np.iinfo(np.int64).max


def reference(
    visual_embeds: Array,
    cls_attention: Array,
    tower_states: Array,
    text_embeds: Array,
    keep: int,
    *,
    rounds: int | None = ROUNDS,
    eta: float = ETA,
) -> npt.NDArray[np.int64]:
    """Kept indices [K], ascending, of one image.

    visual_embeds [V,E], cls_attention [V], tower_states [1+V,Dv] with CLS first, text_embeds [T,E].
    rounds: None drops 8 tokens a round, as published.
    """
    score = fused_score(visual_embeds, cls_attention, text_embeds, eta)
    order = np.argsort(-score, kind="stable")
    features = unit(tower_states[1:])
    important = keep // 2
    diverse = _thin(features @ features.T, order[important:], keep - important, rounds)
    return np.sort(np.concatenate([order[:important], diverse]))


def fused_score(
    visual_embeds: Array, cls_attention: Array, text_embeds: Array, eta: float = ETA
) -> Array:
    """Log of saliency and relevance, [V]: what makes a token important."""
    length = np.sqrt(np.sum(text_embeds * text_embeds, axis=1, keepdims=True))
    text = unit(text_embeds) * (length / np.maximum(length.max(), SHORTEST))
    alike = unit(visual_embeds) @ text.T
    relevance = (_softmax(alike / TEXT_TEMPERATURE) * alike).sum(1)
    relevance = _spread(_softmax(relevance / TOKEN_TEMPERATURE) ** SHARPNESS)
    bound = _quantile(np.sort(relevance))
    relevance = _spread(np.where(relevance >= bound, relevance, DAMPING * relevance))
    saliency = np.log(np.maximum(_spread(cls_attention), FLOOR))
    relevance = np.log(np.maximum(relevance, FLOOR))
    score: Array = np.float32(1 - eta) * saliency + np.float32(eta) * relevance
    return score


def _softmax(logits: Array) -> Array:
    weight = np.exp(logits - logits.max(-1, keepdims=True))
    shares: Array = weight / weight.sum(-1, keepdims=True)
    return shares


def _spread(values: Array) -> Array:
    lowest = values.min()
    spread: Array = (values - lowest) / ((values.max() - lowest) + FLOOR)
    return spread


def _quantile(ascending: Array) -> np.float32:
    """The value that 5 in 1000 exceed, between neighbours by proportion."""
    last = len(ascending) - 1
    below, part = divmod(last * (1000 - PER_MILLE_OUTSTANDING), 1000)
    low, high = ascending[below], ascending[min(below + 1, last)]
    value: np.float32 = low + (high - low) * np.float32(part / 1000)
    return value


def _thin(
    alike: Array, left: npt.NDArray[np.int64], keep: int, rounds: int | None
) -> npt.NDArray[np.int64]:
    """`keep` of the tokens `left`, best first, that resemble each other little; alike [V,V].

    Of tokens that resemble another one equally the lower index is dropped first.
    """
    for i in range(len(alike) if rounds is None else rounds):
        evens, odds, surplus = left[::2], left[1::2], len(left) - keep
        if not surplus:
            break
        if rounds is None:
            dropped = min(DROPPED_A_ROUND, surplus)
        else:
            share = math.ceil(surplus / (rounds - i))
            dropped = max(share, len(left) - keep * 2 ** (rounds - i - 1))
        nearest = alike[np.ix_(evens, odds)].max(1)
        by_likeness = evens[np.lexsort((evens, -nearest))]
        left = np.concatenate([by_likeness[min(dropped, len(evens)) :], odds])
    return left


def body(op: OpBuilder, inputs: dict[str, ir.Value], context: Context) -> tuple[ir.Value, ir.Value]:
    """The same for every image of a call, with `ROUNDS` rounds of a Loop."""
    embeds, keep_ramp = inputs["visual_embeds"], inputs["keep_ramp"]
    length, keep = op.dim(embeds, 1), op.Cast(op.dim(keep_ramp, 0), to=FLOAT)
    text = emit_float(op, inputs["text_embeds"], context)
    tokens = emit_float(op, embeds, context)
    score = _emit_score(op, tokens, inputs["cls_attention"], text, length)
    _, order = op.TopK(score, length, outputs=2, axis=1, largest=1, sorted=1)  # [I,V]
    features = op.Slice(inputs["tower_states"], [1], [END], [1])
    features = emit_unit(op, emit_float(op, features, context))
    alike = op.MatMul(features, op.Transpose(features, perm=[0, 2, 1]))  # [I,V,V]

    # A token's turn is its rank among those left; important ones and dropped ones have none.
    important = op.Floor(op.Mul(keep, np.float32(0.5)))
    diverse = op.Sub(keep, important)
    turn = op.Expand(op.Sub(emit_ramp(op, length), important), op.Shape(score))
    turn = op.ScatterElements(score, order, turn, axis=1)  # [I,V]
    is_important = op.Less(turn, np.float32(0))
    token = op.iota(op.Squeeze(length))
    earlier = op.Less(op.Unsqueeze(token, [0]), op.Unsqueeze(token, [1]))  # [V,V]
    (turn,) = op.loop(
        op.value(np.int64(ROUNDS)),
        [(op.Max(turn, OUT), FLOAT)],
        lambda inner, i, state: [_emit_round(inner, i, state[0], alike, diverse, earlier)],
    )
    kept = op.Cast(op.Or(is_important, op.Greater(turn, OUT)), to=FLOAT)
    index = emit_best(op, kept, keep_ramp)
    return index, emit_take(op, embeds, index)


def _emit_score(
    op: OpBuilder, tokens: ir.Value, attention: ir.Value, text: ir.Value, length: ir.Value
) -> Any:
    """`fused_score` of float32 tokens [I,V,E] and text [T,E]: [I,V]."""
    size = op.Sqrt(op.ReduceSum(op.Mul(text, text), [1], keepdims=1))
    gate = op.Div(size, op.Max(op.ReduceMax(size, [0], keepdims=1), SHORTEST))
    text = op.Mul(emit_unit(op, text), gate)
    alike = op.MatMul(emit_unit(op, tokens), op.Transpose(text, perm=[1, 0]))  # [I,V,T]
    weight = op.Softmax(op.Div(alike, TEXT_TEMPERATURE), axis=-1)
    relevance = op.ReduceSum(op.Mul(weight, alike), [2], keepdims=0)
    relevance = op.Softmax(op.Div(relevance, TOKEN_TEMPERATURE), axis=-1)
    relevance = _emit_spread(op, op.Pow(relevance, SHARPNESS))
    outstanding = op.GreaterOrEqual(relevance, _emit_quantile(op, relevance, length))
    damped = op.Where(outstanding, relevance, op.Mul(relevance, DAMPING))
    relevance = op.Log(op.Max(_emit_spread(op, damped), FLOOR))
    saliency = op.Log(op.Max(_emit_spread(op, attention), FLOOR))
    weighted = op.Mul(relevance, np.float32(ETA))
    return op.Add(op.Mul(saliency, np.float32(1 - ETA)), weighted)


def _emit_spread(op: OpBuilder, values: ir.Value) -> Any:
    lowest = op.ReduceMin(values, [1], keepdims=1)
    reach = op.Sub(op.ReduceMax(values, [1], keepdims=1), lowest)
    return op.Div(op.Sub(values, lowest), op.Add(reach, FLOOR))


def _emit_quantile(op: OpBuilder, values: ir.Value, length: ir.Value) -> Any:
    ascending, _ = op.TopK(values, length, outputs=2, axis=1, largest=0, sorted=1)
    last = op.Sub(length, [1])
    scaled = op.Mul(last, [1000 - PER_MILLE_OUTSTANDING])
    below = op.Div(scaled, [1000])
    part = op.Cast(op.Sub(scaled, op.Mul(below, [1000])), to=FLOAT)
    low = op.Gather(ascending, below, axis=1)
    high = op.Gather(ascending, op.Min(op.Add(below, [1]), last), axis=1)
    part = op.Div(part, np.float32(1000))
    return op.Add(low, op.Mul(op.Sub(high, low), part))


def _emit_round(
    op: OpBuilder,
    i: ir.Value,
    turn: ir.Value,
    alike: ir.Value,
    diverse: ir.Value,
    earlier: ir.Value,
) -> Any:
    """The turns [I,V] after one more round of `_thin` on all images."""
    half = op.Floor(op.Mul(turn, np.float32(0.5)))
    at_even = op.Equal(op.Add(half, half), turn)
    here = op.Greater(turn, OUT)
    even, odd = op.And(here, at_even), op.And(here, op.Not(at_even))

    left = op.ReduceSum(op.Cast(here, to=FLOAT), [1], keepdims=1)  # [I,1]
    rounds = op.Sub(np.float32(ROUNDS), op.Cast(i, to=FLOAT))
    # What the later rounds can halve down to the wanted count.
    reach = op.Gather(np.exp2(np.arange(ROUNDS)[::-1]).astype(np.float32), i, axis=0)
    share = op.Ceil(op.Div(op.Sub(left, diverse), rounds))
    evens = op.Ceil(op.Mul(left, np.float32(0.5)))
    dropped = op.Min(op.Max(share, op.Sub(left, op.Mul(diverse, reach))), evens)

    # An addition takes half the time of a Where over [I,V,V].
    only_odd = op.Where(op.Unsqueeze(odd, [1]), np.float32(0), FAR)
    nearest = op.ReduceMax(op.Add(alike, only_odd), [2], keepdims=0)  # [I,V]
    nearest = op.Where(even, nearest, np.float32(2) * FAR)
    # Ranks by comparing all pairs: TensorRT fails on a TopK inside a Loop.
    mine, other = op.Unsqueeze(nearest, [2]), op.Unsqueeze(nearest, [1])
    ahead = op.Or(op.Greater(other, mine), op.And(op.Equal(other, mine), earlier))
    place = op.ReduceSum(op.Cast(ahead, to=FLOAT), [2], keepdims=0)
    # Dropped tokens get a place below 0. What stays of the even ones comes first.
    after = op.Where(odd, op.Add(half, op.Sub(evens, dropped)), OUT)
    return op.Where(even, op.Max(op.Sub(place, dropped), OUT), after)


FLASHVLM = Selector(
    name="flashvlm",
    paper=(
        "FlashVLM: Text-Guided Visual Token Selection for Large Multimodal Models, "
        "Cai et al. 2025, arXiv:2512.20561"
    ),
    signals=("cls_attention", "tower_states"),
    text_guided=True,
    default_keep="22.2%",
    body=body,
    reference=reference,
)
