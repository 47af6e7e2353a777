"""What a GGUF file computes, by the format's own conventions: what the reader is held against.

Written apart from the reader: nothing is renamed, permuted or turned into a config. Tensors keep
the file's names and rows, keys and queries are rotated as llama.cpp rotates them, and metadata is
read here a second time. Formulas: ggml's rope (ggml-cpu/ops.cpp) and llama.cpp's src/models.
"""

from __future__ import annotations

import math
from typing import Any

import gguf
import numpy as np
import torch

from tightrope.arrays import Array, Floats
from tightrope.export.gguf.file import GgufFile

_PATTERN = "attention.sliding_window_pattern"
_NEIGHBOURS = {"llama": True, "qwen2": False}
"""Whether an architecture rotates neighbouring rows of a head, or rows half a head apart."""


class _File:
    """Metadata of the architecture and dequantised tensors, one at a time."""

    def __init__(self, file: GgufFile) -> None:
        self._file = file
        self.architecture = file.architecture

    def key(self, name: str, default: Any) -> Any:
        value = self._file.metadata.get(f"{self.architecture}.{name}", default)
        return value[0] if isinstance(value, list) and name != _PATTERN else value

    def tensor(self, name: str) -> torch.Tensor | None:
        """[out, in], float32; None if the file has none."""
        found = self._file.tensors.get(name)
        if found is None:
            return None
        rows = gguf.dequantize(np.asarray(found.data), found.tensor_type)
        return torch.from_numpy(np.array(rows, np.float32))

    def linear(self, states: torch.Tensor, name: str) -> torch.Tensor:
        weight, bias = self.tensor(f"{name}.weight"), self.tensor(f"{name}.bias")
        assert weight is not None
        product = states @ weight.T
        return product if bias is None else product + bias

    def normed(self, states: torch.Tensor, name: str) -> torch.Tensor:
        weight = self.tensor(f"{name}.weight")
        assert weight is not None
        epsilon = self.key("attention.layer_norm_rms_epsilon", 0.0)
        scale = (states.pow(2).mean(-1, keepdim=True) + epsilon).rsqrt()
        return torch.mul(states * scale, weight)


def logits(file: GgufFile, token_ids: Array, positions: Array) -> Floats:
    """Logits float32 [S,vocab] of a text whose tokens stand at `positions` [S]."""
    source = _File(file)
    table = source.tensor("token_embd.weight")
    assert table is not None
    states = table[torch.from_numpy(token_ids)]
    turns, length = _turns(source, positions, table.shape[1])
    with torch.no_grad():
        for layer in range(source.key("block_count", 0)):
            states = states + _attention(source, layer, states, turns, length)
            hidden = source.normed(states, f"blk.{layer}.ffn_norm")
            gate = source.linear(hidden, f"blk.{layer}.ffn_gate")
            up = source.linear(hidden, f"blk.{layer}.ffn_up")
            down = torch.nn.functional.silu(gate) * up
            states = states + source.linear(down, f"blk.{layer}.ffn_down")
        states = source.normed(states, "output_norm")
        head = source.tensor("output.weight")
        values: Floats = (states @ (table if head is None else head).T).numpy()
    return values


def _turns(source: _File, positions: Array, width: int) -> tuple[torch.Tensor, float]:
    """Angles [S, D/2] by which pairs of rows are turned, and by what they are lengthened."""
    heads = source.key("attention.head_count", 1)
    dimension = source.key("attention.key_length", width // heads)
    base = source.key("rope.freq_base", 10000.0)
    factor = source.key("rope.scaling.factor", source.key("rope.scale_linear", 0.0)) or 1.0
    kind = source.key("rope.scaling.type", "linear")
    pairs = np.arange(dimension // 2)
    divisors = source.tensor("rope_freqs.weight")
    own = np.ones(len(pairs)) if divisors is None else divisors.double().numpy()
    extrapolated = positions[:, None] * base ** (-2.0 * pairs / dimension) / own
    interpolated = extrapolated if kind == "none" else extrapolated / factor
    if kind != "yarn":
        return torch.from_numpy(interpolated.astype(np.float32)), 1.0
    trained = source.key("rope.scaling.original_context_length", source.key("context_length", 0))

    def pair_that_turns(times: float) -> float:
        """The pair that turns so many times over the trained context."""
        turned = math.log(trained / (times * 2 * math.pi)) / (2 * math.log(base))
        return float(dimension * turned)

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


def _attention(
    source: _File, layer: int, states: torch.Tensor, turns: torch.Tensor, length: float
) -> torch.Tensor:
    block, count = f"blk.{layer}", states.shape[0]
    hidden = source.normed(states, f"{block}.attn_norm")
    heads = source.key("attention.head_count", 1)
    kv_heads = source.key("attention.head_count_kv", heads)
    query, key, value = (
        source.linear(hidden, f"{block}.attn_{part}").view(count, number, -1)
        for part, number in (("q", heads), ("k", kv_heads), ("v", kv_heads))
    )
    query, key = (_rotated(source, part, turns, length) for part in (query, key))
    key, value = (part.repeat_interleave(heads // kv_heads, 1) for part in (key, value))
    scores = torch.einsum("shd,thd->hst", query, key) / math.sqrt(query.shape[-1])
    scores = scores.masked_fill(~_visible(source, layer, count), float("-inf"))
    mixed = torch.einsum("hst,thd->shd", scores.softmax(-1), value).reshape(count, -1)
    return source.linear(mixed, f"{block}.attn_output")


def _rotated(source: _File, part: torch.Tensor, turns: torch.Tensor, length: float) -> torch.Tensor:
    """Queries or keys [S,H,D], each pair of rows turned by its angle."""
    cos, sin = turns.cos()[:, None] * length, turns.sin()[:, None] * length
    if _NEIGHBOURS[source.architecture]:
        first, second = part[..., 0::2], part[..., 1::2]
        pairs = first * cos - second * sin, first * sin + second * cos
        return torch.stack(pairs, -1).flatten(-2)
    first, second = part.chunk(2, -1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], -1)


def _visible(source: _File, layer: int, count: int) -> torch.Tensor:
    """Which tokens [S,S] a token sees: those before it, in some models of a window only."""
    behind = torch.arange(count)[:, None] - torch.arange(count)[None]
    window = source.key("attention.sliding_window", 0)
    if not window or window >= source.key("context_length", 0):
        return behind >= 0
    pattern = source.key(_PATTERN, 1)
    slides = pattern[layer] if isinstance(pattern, list) else (layer + 1) % pattern != 0
    return (behind >= 0) & (behind < window) if slides else behind >= 0
