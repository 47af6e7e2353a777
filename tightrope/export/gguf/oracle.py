"""What a GGUF file computes, by the format's own conventions: what the reader is held against.

Written apart from the reader: nothing is renamed, permuted, joined or turned into a config. Tensors
keep the file's names and rows, keys and queries are rotated as llama.cpp rotates them, and metadata
is read here a second time. Formulas: ggml's rope (ggml-cpu/ops.cpp) and llama.cpp's src/models.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import gguf
import numpy as np
import torch

from tightrope.arrays import Array, Floats
from tightrope.export.gguf.file import GgufFile

_PATTERN = "attention.sliding_window_pattern"
_AT_ONCE = 1 << 22
"""Bytes of a tensor that are dequantised in one go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Conventions:
    """What an architecture's code does that no key of its files says."""

    neighbours: bool = False
    """Whether it rotates neighbouring rows of a head, or rows half a head apart."""
    pattern: int = 1
    """Every so many-th layer sees beyond the window; 0: none does, 1: all do."""
    local_base: float | None = None
    """Base of the rotary frequencies of layers that see a window, if it is another."""
    unrotated: int = 0
    """Every so many-th layer rotates nothing."""
    gemma: bool = False
    """Whether embeddings are lengthened by the root of their width, and gates are GELUs."""
    largest: int = 0
    """Layers of a model whose scores are scaled by its width over its heads, not by a head's."""
    final_norm: str = "output_norm"


_ARCHITECTURES = {
    "llama": _Conventions(neighbours=True),
    "qwen2": _Conventions(),
    "qwen3": _Conventions(),
    "qwen2vl": _Conventions(),
    "qwen3vl": _Conventions(),
    "qwen3moe": _Conventions(),
    "smollm3": _Conventions(neighbours=True, unrotated=4),
    "gemma2": _Conventions(pattern=2, gemma=True, largest=46),
    "gemma3": _Conventions(pattern=6, gemma=True, local_base=10000.0, largest=62),
    "phi3": _Conventions(pattern=0),
    "granite": _Conventions(neighbours=True),
    "mistral3": _Conventions(neighbours=True),
    "lfm2": _Conventions(final_norm="token_embd_norm"),
}


class _File:
    """Metadata of the architecture and dequantised tensors, one at a time."""

    def __init__(self, file: GgufFile) -> None:
        self._file = file
        self.conventions = _ARCHITECTURES[file.architecture]

    def key(self, name: str, default: Any, layer: int = 0) -> Any:
        """A list is one of what each layer has, but for the pattern of windows."""
        value = self._file.metadata.get(f"{self._file.architecture}.{name}", default)
        return value[layer] if isinstance(value, list) and name != _PATTERN else value

    def tensor(self, name: str) -> torch.Tensor | None:
        """[out, in], float32; None if the file has none."""
        found = self._file.tensors.get(name)
        if found is None:
            return None
        data = np.asarray(found.data)
        parts = np.array_split(data, min(len(data), 1 + data.nbytes // _AT_ONCE))
        rows = [gguf.dequantize(part, found.tensor_type) for part in parts]
        return torch.from_numpy(np.concatenate(rows, dtype=np.float32))

    def linear(self, states: torch.Tensor, name: str) -> torch.Tensor:
        weight, bias = self.tensor(f"{name}.weight"), self.tensor(f"{name}.bias")
        assert weight is not None
        product = states @ weight.T
        return product if bias is None else product + bias

    def normed(self, states: torch.Tensor, name: str) -> torch.Tensor:
        """Unchanged where the file has no such norm."""
        weight = self.tensor(f"{name}.weight")
        if weight is None:
            return states
        epsilon = self.key("attention.layer_norm_rms_epsilon", 0.0)
        scale = (states.pow(2).mean(-1, keepdim=True) + epsilon).rsqrt()
        return torch.mul(states * scale, weight)

    def slides(self, layer: int) -> bool:
        """Whether the layer is one that sees a window."""
        if not self.key("attention.sliding_window", 0):
            return False
        pattern = self.key(_PATTERN, self.conventions.pattern)
        if isinstance(pattern, list):
            return bool(pattern[layer])
        return bool(pattern == 0 or layer % pattern < pattern - 1)


def logits(file: GgufFile, token_ids: Array, positions: Array) -> Floats:
    """Logits float32 [S,vocab] of a text whose tokens stand at `positions` [S]."""
    source = _File(file)
    table = source.tensor("token_embd.weight")
    assert table is not None
    states = table[torch.from_numpy(token_ids)] * source.key("embedding_scale", 1.0)
    if source.conventions.gemma:
        states = states * math.sqrt(table.shape[1])
    residual = source.key("residual_scale", 1.0)
    turns = {slides: _turns(source, positions, table.shape[1], slides) for slides in (False, True)}
    growth = _growth(source, positions)
    with torch.no_grad():
        for layer in range(source.key("block_count", 0)):
            if source.tensor(f"blk.{layer}.shortconv.conv.weight") is None:
                mixed = _attention(source, layer, states, *turns[source.slides(layer)], growth)
            else:
                mixed = _convolved(source, f"blk.{layer}", states)
            states = states + residual * source.normed(mixed, f"blk.{layer}.post_attention_norm")
            hidden = source.normed(states, f"blk.{layer}.ffn_norm")
            down = _feed_forward(source, f"blk.{layer}", hidden)
            states = states + residual * source.normed(down, f"blk.{layer}.post_ffw_norm")
        states = source.normed(states, source.conventions.final_norm)
        head = source.tensor("output.weight")
        values = (states @ (table if head is None else head).T) / source.key("logit_scale", 1.0)
        capped: Floats = _capped(values, source.key("final_logit_softcapping", 0.0)).numpy()
    return capped


def _capped(values: torch.Tensor, cap: float) -> torch.Tensor:
    return (values / cap).tanh() * cap if cap else values


def _turns(source: _File, positions: Array, width: int, slides: bool) -> tuple[torch.Tensor, float]:
    """Angles [S,pairs] by which pairs of rows are turned, and a factor of the result.

    Layers that see a window may have frequencies of their own, which nothing scales.
    """
    head = source.key("attention.key_length", width // source.key("attention.head_count", 1))
    dimension = source.key("rope.dimension_count", head)
    pairs = np.arange(dimension // 2)
    local = source.conventions.local_base
    if slides and local is not None:
        base = source.key("rope.freq_base_swa", local)
        angles = positions[:, None] * base ** (-2.0 * pairs / dimension)
        return torch.from_numpy(angles.astype(np.float32)), 1.0
    base = source.key("rope.freq_base", 10000.0)
    factor = source.key("rope.scaling.factor", source.key("rope.scale_linear", 0.0)) or 1.0
    kind = source.key("rope.scaling.type", "linear")
    divisors, short = (
        source.tensor(f"{name}.weight") for name in ("rope_freqs", "rope_factors_short")
    )
    own = np.ones(len(pairs)) if divisors is None else divisors.double().numpy()
    if short is not None:  # of conversations within the context of before
        own = short.double().numpy()
    extrapolated = positions[:, None] * base ** (-2.0 * pairs / dimension) / own
    interpolated = extrapolated if kind == "none" else extrapolated / factor
    if kind != "yarn":
        length = 1.0 if short is None else source.key("rope.scaling.attn_factor", 1.0)
        return torch.from_numpy(interpolated.astype(np.float32)), float(length)
    return _yarn(source, extrapolated, interpolated, dimension, base, factor)


def _yarn(
    source: _File,
    extrapolated: Array,
    interpolated: Array,
    dimension: int,
    base: float,
    factor: float,
) -> tuple[torch.Tensor, float]:
    """Angles between those of either kind, by how often a pair turns over the trained context."""
    trained = source.key("rope.scaling.original_context_length", source.key("context_length", 0))

    def pair_that_turns(times: float) -> float:
        """The pair that turns so many times over the trained context."""
        turned = math.log(trained / (times * 2 * math.pi)) / (2 * math.log(base))
        return float(dimension * turned)

    pairs = np.arange(dimension // 2)
    first = max(0.0, math.floor(pair_that_turns(source.key("rope.scaling.yarn_beta_fast", 32.0))))
    last = min(
        dimension - 1.0,
        math.ceil(pair_that_turns(source.key("rope.scaling.yarn_beta_slow", 1.0))),
    )
    kept = 1 - np.clip((pairs - first) / max(0.001, last - first), 0, 1)
    mixed = interpolated * (1 - kept) + extrapolated * kept
    stretch = math.log(factor) if factor > 1 else 0.0
    length = float(source.key("rope.scaling.attn_factor", 1.0)) * (1 + 0.1 * stretch)
    length /= 1 + 0.1 * stretch * source.key("rope.scaling.yarn_log_multiplier", 0.0)
    if (given := source.key("rope.scaling.yarn_attn_factor", -1.0)) != -1.0:
        length = given
    return torch.from_numpy(mixed.astype(np.float32)), length


def _growth(source: _File, positions: Array) -> torch.Tensor:
    """[S,1,1] by which queries are longer, a step for each context of before."""
    trained = source.key("rope.scaling.original_context_length", source.key("context_length", 0))
    steps = np.log(np.floor(positions / trained) + 1)
    growth = 1 + source.key("attention.temperature_scale", 0.0) * steps
    return torch.from_numpy(growth.astype(np.float32))[:, None, None]


def _convolved(source: _File, block: str, states: torch.Tensor) -> torch.Tensor:
    """Each channel weighted over the newest inputs, between two gates."""
    hidden = source.normed(states, f"{block}.attn_norm")
    kernel = source.tensor(f"{block}.shortconv.conv.weight")
    assert kernel is not None
    before, behind, inputs = source.linear(hidden, f"{block}.shortconv.in_proj").chunk(3, -1)
    taps = kernel.shape[1]
    padded = torch.cat([torch.zeros(taps - 1, states.shape[1]), before * inputs])
    mixed = (padded.unfold(0, taps, 1) * kernel).sum(-1)
    return source.linear(behind * mixed, f"{block}.shortconv.out_proj")


def _attention(
    source: _File,
    layer: int,
    states: torch.Tensor,
    turns: torch.Tensor,
    length: float,
    growth: torch.Tensor,
) -> torch.Tensor:
    block, count = f"blk.{layer}", states.shape[0]
    hidden = source.normed(states, f"{block}.attn_norm")
    heads = source.key("attention.head_count", 1)
    kv_heads = source.key("attention.head_count_kv", heads, layer)
    query, key, value = (
        part.reshape(count, number, -1)
        for part, number in zip(
            _projected(source, block, hidden, heads, kv_heads),
            (heads, kv_heads, kv_heads),
            strict=True,
        )
    )
    query = source.normed(query, f"{block}.attn_q_norm")
    key = source.normed(key, f"{block}.attn_k_norm")
    every = source.conventions.unrotated
    if not every or (layer + 1) % every:
        query, key = (_rotated(source, part, turns, length) for part in (query, key))
    query = query * growth
    key, value = (part.repeat_interleave(heads // kv_heads, 1) for part in (key, value))
    length = query.shape[-1]
    if source.key("block_count", 0) == source.conventions.largest:
        length = states.shape[-1] // source.key("attention.head_count", 1)
    scale = source.key("attention.scale", 1 / math.sqrt(length))
    scores = torch.einsum("shd,thd->hst", query, key) * scale
    scores = _capped(scores, source.key("attn_logit_softcapping", 0.0))
    scores = scores.masked_fill(~_visible(source, layer, count), float("-inf"))
    mixed = torch.einsum("hst,thd->shd", scores.softmax(-1), value).reshape(count, -1)
    return source.linear(mixed, f"{block}.attn_output")


def _projected(
    source: _File, block: str, hidden: torch.Tensor, heads: int, kv_heads: int
) -> tuple[torch.Tensor, ...]:
    """Queries, keys and values, of three matrices or of one that is all of them."""
    if source.tensor(f"{block}.attn_qkv.weight") is None:
        return tuple(source.linear(hidden, f"{block}.attn_{part}") for part in "qkv")
    fused = source.linear(hidden, f"{block}.attn_qkv")
    width = fused.shape[-1] // (heads + 2 * kv_heads)
    ends = np.cumsum([heads, kv_heads]) * width
    return fused.tensor_split(ends.tolist(), -1)


def _feed_forward(source: _File, block: str, hidden: torch.Tensor) -> torch.Tensor:
    if source.tensor(f"{block}.ffn_gate_inp.weight") is not None:
        return _experts(source, block, hidden)
    if source.tensor(f"{block}.ffn_gate.weight") is None:
        gate, up = source.linear(hidden, f"{block}.ffn_up").chunk(2, -1)
    else:
        gate, up = (source.linear(hidden, f"{block}.ffn_{part}") for part in ("gate", "up"))
    if source.conventions.gemma:
        gate = torch.nn.functional.gelu(gate, approximate="tanh")
    else:
        gate = torch.nn.functional.silu(gate)
    return source.linear(gate * up, f"{block}.ffn_down")


def _experts(source: _File, block: str, hidden: torch.Tensor) -> torch.Tensor:
    """Each token by the experts of its largest probabilities, which then add up to 1."""
    gates, ups, downs = (
        source.tensor(f"{block}.ffn_{part}_exps.weight") for part in ("gate", "up", "down")
    )
    assert gates is not None and ups is not None and downs is not None
    share = source.linear(hidden, f"{block}.ffn_gate_inp").softmax(-1)
    weights, chosen = share.topk(source.key("expert_used_count", 1))
    weights = weights / weights.sum(-1, keepdim=True)
    out = torch.zeros_like(hidden)
    for token, (experts, shares) in enumerate(zip(chosen.tolist(), weights, strict=True)):
        for expert, weight in zip(experts, shares, strict=True):
            gate = torch.nn.functional.silu(gates[expert] @ hidden[token])
            out[token] += weight * (downs[expert] @ (gate * (ups[expert] @ hidden[token])))
    return out


def _rotated(source: _File, part: torch.Tensor, turns: torch.Tensor, length: float) -> torch.Tensor:
    """Queries or keys [S,H,D], each pair of rows turned by its angle; further rows stay."""
    cos, sin = turns.cos()[:, None] * length, turns.sin()[:, None] * length
    part, rest = part.tensor_split([2 * turns.shape[1]], -1)
    if source.conventions.neighbours:
        first, second = part[..., 0::2], part[..., 1::2]
        pairs = first * cos - second * sin, first * sin + second * cos
        return torch.cat([torch.stack(pairs, -1).flatten(-2), rest], -1)
    first, second = part.chunk(2, -1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos, rest], -1)


def _visible(source: _File, layer: int, count: int) -> torch.Tensor:
    """Which tokens [S,S] a token sees: those before it, in some models of a window only."""
    behind = torch.arange(count)[:, None] - torch.arange(count)[None]
    window = source.key("attention.sliding_window", 0)
    if not source.slides(layer) or window >= source.key("context_length", 0):
        return behind >= 0
    return torch.logical_and(behind >= 0, behind < window)
