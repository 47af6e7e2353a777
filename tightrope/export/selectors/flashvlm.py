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

from tightrope.arrays import Floats, Indices
from tightrope.export.selectors.selector import Context, Given, Image, from_score
from tightrope.export.selectors.steps import (
    SHORTEST,
    cosines,
    emit_ascending,
    emit_cosines,
    emit_float,
    emit_patches,
    emit_ramp,
    emit_ranking,
    emit_unit,
    ranking,
    unit,
)
from tightrope.interface.onnx import FLOAT
from tightrope.interface.tensors import (
    CLS_ATTENTION,
    KEEP_RAMP,
    TEXT_EMBEDS,
    TOWER_STATES,
    VISUAL_EMBEDS,
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


def score(image: Image, keep: int, *, rounds: int | None = ROUNDS, eta: float = ETA) -> Floats:
    """1 for the tokens that stay, 0 for the others, [V].

    rounds: None drops 8 tokens a round, as published.
    """
    order = ranking(importance(image, eta))
    important, left = order[: keep // 2], order[keep // 2 :]
    diverse = _thin(cosines(image.tower_states[1:]), left, keep - len(important), rounds)
    stays = np.zeros(len(order), np.float32)
    stays[important] = stays[diverse] = 1
    return stays


def importance(image: Image, eta: float = ETA) -> Floats:
    """Log of saliency and relevance, [V]."""
    text = image.text_embeds
    length = np.sqrt(np.sum(text * text, axis=1, keepdims=True))
    text = unit(text) * (length / np.maximum(length.max(), SHORTEST))
    alike = unit(image.visual_embeds) @ text.T
    relevance = (_softmax(alike / TEXT_TEMPERATURE) * alike).sum(1)
    relevance = _spread(_softmax(relevance / TOKEN_TEMPERATURE) ** SHARPNESS)
    bound = _quantile(np.sort(relevance))
    relevance = _spread(np.where(relevance >= bound, relevance, DAMPING * relevance))
    saliency = np.log(np.maximum(_spread(image.cls_attention), FLOOR))
    relevance = np.log(np.maximum(relevance, FLOOR))
    fused: Floats = np.float32(1 - eta) * saliency + np.float32(eta) * relevance
    return fused


def _softmax(logits: Floats) -> Floats:
    weight = np.exp(logits - logits.max(-1, keepdims=True))
    shares: Floats = weight / weight.sum(-1, keepdims=True)
    return shares


def _spread(values: Floats) -> Floats:
    lowest = values.min()
    spread: Floats = (values - lowest) / ((values.max() - lowest) + FLOOR)
    return spread


def _quantile(ascending: Floats) -> np.float32:
    """The value that 5 in 1000 exceed, between neighbours by proportion."""
    last = len(ascending) - 1
    below, part = divmod(last * (1000 - PER_MILLE_OUTSTANDING), 1000)
    low, high = ascending[below], ascending[min(below + 1, last)]
    value: np.float32 = low + (high - low) * np.float32(part / 1000)
    return value


def _thin(alike: Floats, left: Indices, keep: int, rounds: int | None) -> Indices:
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


def emit(op: OpBuilder, given: Given, context: Context) -> ir.Value:
    """With `ROUNDS` rounds of a Loop."""
    fused = _emit_importance(
        op,
        emit_float(op, given[VISUAL_EMBEDS], context.activation),
        given[CLS_ATTENTION],
        emit_float(op, given[TEXT_EMBEDS], context.activation),
    )
    states = emit_float(op, given[TOWER_STATES], context.activation)
    alike = emit_cosines(op, emit_patches(op, states))  # [I,V,V]
    length, keep = op.dim(fused, 1), op.Cast(op.dim(given[KEEP_RAMP], 0), to=FLOAT)

    # A token's turn is its rank among those left; important ones and dropped ones have none.
    important = op.Floor(op.Mul(keep, np.float32(0.5)))
    diverse = op.Sub(keep, important)
    turn = op.Expand(op.Sub(emit_ramp(op, length), important), op.Shape(fused))
    turn = op.ScatterElements(fused, emit_ranking(op, fused), turn, axis=1)  # [I,V]
    is_important = op.Less(turn, np.float32(0))
    token = op.iota(op.Squeeze(length))
    earlier = op.Less(op.Unsqueeze(token, [0]), op.Unsqueeze(token, [1]))  # [V,V]
    (turn,) = op.loop(
        op.value(np.int64(ROUNDS)),
        [(op.Max(turn, OUT), FLOAT)],
        lambda inner, i, state: [_emit_round(inner, i, state[0], alike, diverse, earlier)],
    )
    return op.Cast(op.Or(is_important, op.Greater(turn, OUT)), to=FLOAT)


def _emit_importance(op: OpBuilder, tokens: ir.Value, attention: ir.Value, text: ir.Value) -> Any:
    """`importance` of tokens [I,V,E], attention [I,V] and text [T,E]: [I,V]."""
    size = op.Sqrt(op.ReduceSum(op.Mul(text, text), [1], keepdims=1))
    gate = op.Div(size, op.Max(op.ReduceMax(size, [0], keepdims=1), SHORTEST))
    text = op.Mul(emit_unit(op, text), gate)
    alike = op.MatMul(emit_unit(op, tokens), op.Transpose(text, perm=[1, 0]))  # [I,V,T]
    weight = op.Softmax(op.Div(alike, TEXT_TEMPERATURE), axis=-1)
    relevance = op.ReduceSum(op.Mul(weight, alike), [2], keepdims=0)
    relevance = op.Softmax(op.Div(relevance, TOKEN_TEMPERATURE), axis=-1)
    relevance = _emit_spread(op, op.Pow(relevance, SHARPNESS))
    outstanding = op.GreaterOrEqual(relevance, _emit_quantile(op, relevance))
    damped = op.Where(outstanding, relevance, op.Mul(relevance, DAMPING))
    relevance = op.Log(op.Max(_emit_spread(op, damped), FLOOR))
    saliency = op.Log(op.Max(_emit_spread(op, attention), FLOOR))
    weighted = op.Mul(relevance, np.float32(ETA))
    return op.Add(op.Mul(saliency, np.float32(1 - ETA)), weighted)


def _emit_spread(op: OpBuilder, values: ir.Value) -> Any:
    lowest = op.ReduceMin(values, [1], keepdims=1)
    reach = op.Sub(op.ReduceMax(values, [1], keepdims=1), lowest)
    return op.Div(op.Sub(values, lowest), op.Add(reach, FLOOR))


def _emit_quantile(op: OpBuilder, values: ir.Value) -> Any:
    ascending, last = emit_ascending(op, values), op.Sub(op.dim(values, 1), [1])
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


FLASHVLM = from_score(
    name="flashvlm",
    paper=(
        "FlashVLM: Text-Guided Visual Token Selection for Large Multimodal Models, "
        "Cai et al. 2025, arXiv:2512.20561"
    ),
    default_keep="22.2%",
    signals=(CLS_ATTENTION, TOWER_STATES),
    text_guided=True,
    score=score,
    emit=emit,
)
