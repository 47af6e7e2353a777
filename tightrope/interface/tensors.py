"""Inputs and outputs of every graph of a bundle, one row each.

Export derives dummy inputs, axis names and checks from these rows; the runtime derives its
bindings. "T" is the graph's own float: float32 in host graphs, float16 in standard ones unless
the export is fp32. Axes: see `tightrope`; `U3` is how many slots of layer 3 are handed over: all of
them in decode, in prefill those up to the last occupied one. Scores and positions, small beside
keys and values, are as wide as the largest layer and stand in one tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Axis = str | int


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output: its name, element type and axes (a name, or a fixed length)."""

    name: str
    dtype: str
    axes: tuple[Axis, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dims:
    """The sizes of a decoder that shape its graphs."""

    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    hidden_size: int
    vocab_size: int


Rows = tuple[TensorSpec, ...]


def decoder_inputs(dims: Dims, stages: int = 0) -> Rows:
    """Inputs of a decoder graph; each in-LLM stage adds how many tokens it keeps."""
    heads, width, layers = dims.num_key_value_heads, dims.head_dim, range(dims.num_hidden_layers)
    rows = [
        TensorSpec("inputs_embeds", "T", ("N", "S", dims.hidden_size)),
        TensorSpec("query_position", "int32", ("N", "S")),
        TensorSpec("rope_position", "int64", ("N", "S")),
        *(TensorSpec(f"slot_key.{i}", "T", ("N", heads, f"U{i}", width)) for i in layers),
        *(TensorSpec(f"slot_value.{i}", "T", ("N", heads, f"U{i}", width)) for i in layers),
        TensorSpec("slot_score", "float32", (len(layers), "N", heads, "C")),
        TensorSpec("slot_position", "int32", (len(layers), "N", heads, "C")),
        TensorSpec("kv_budget", "int64", (dims.num_hidden_layers,)),
        TensorSpec("policy", "float32", (8,)),
    ]
    if stages:
        rows.append(TensorSpec("visual_index", "int64", ("N", "V")))
        rows += [TensorSpec(f"keep_ramp.{i}", "int64", (f"K{i}",)) for i in range(stages)]
    return tuple(rows)


def decoder_outputs(dims: Dims, stages: int = 0) -> Rows:
    """Outputs of a decoder graph; with stages the layers differ in S and stay apart."""
    heads, width, layers = dims.num_key_value_heads, dims.head_dim, range(dims.num_hidden_layers)
    rows = [TensorSpec("logits", "float32", ("N", dims.vocab_size))]
    if stages:
        rows += [TensorSpec(f"key.{i}", "T", ("N", heads, f"S{i}", width)) for i in layers]
        rows += [TensorSpec(f"value.{i}", "T", ("N", heads, f"S{i}", width)) for i in layers]
        rows += [TensorSpec(f"target.{i}", "int32", ("N", heads, f"S{i}")) for i in layers]
    else:
        rows += [
            TensorSpec("key", "T", (len(layers), "N", heads, "S", width)),
            TensorSpec("value", "T", (len(layers), "N", heads, "S", width)),
            TensorSpec("target", "int32", (len(layers), "N", heads, "S")),
        ]
    rows.append(TensorSpec("next_score", "float32", (len(layers), "N", heads, "C")))
    rows.append(TensorSpec("next_position", "int32", (len(layers), "N", heads, "C")))
    return tuple(rows)


def vision_inputs(width: int) -> Rows:
    """Inputs of a tower with learned positions, of width Dv = `width`; P = 1 + V positions."""
    return (
        TensorSpec("pixel_values", "T", ("I", 3, "H", "W")),
        TensorSpec("position_table", "T", (1, "P", width)),
    )


def vision_outputs(width: int, head_dim: int, embed: int, signals: Sequence[str]) -> Rows:
    """The visual tokens, and the signals that the bundle's selectors ask for."""
    known = {
        "cls_attention": TensorSpec("cls_attention", "float32", ("I", "V")),
        "tower_keys": TensorSpec("tower_keys", "T", ("I", "V", head_dim)),
        "tower_states": TensorSpec("tower_states", "T", ("I", "P", width)),
    }
    return (
        TensorSpec("visual_embeds", "T", ("I", "V", embed)),
        *(known[signal] for signal in signals),
    )


def select_inputs(embed: int, signals: Rows, text_guided: bool) -> Rows:
    """Inputs of one selector's graph."""
    text = (TensorSpec("text_embeds", "T", ("T", embed)),) if text_guided else ()
    return (
        TensorSpec("visual_embeds", "T", ("I", "V", embed)),
        *signals,
        *text,
        TensorSpec("keep_ramp", "int64", ("K",)),
    )


def select_outputs(embed: int) -> Rows:
    """Kept places of each image, ascending, and their embeddings."""
    return (
        TensorSpec("index", "int64", ("I", "K")),
        TensorSpec("embeds", "T", ("I", "K", embed)),
    )
