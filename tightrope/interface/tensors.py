"""Inputs and outputs of every graph of a bundle, one row each; the only place that spells a name.

Dummy inputs, axis names, feeds, bindings and checks are derived from these rows. The element type
"activation" is the graph's own float: float32 in host graphs, float16 in standard ones unless the
export is fp32. Axes: see `tightrope`. A number behind an axis is a layer's or a stage's: U3 is how
many slots of layer 3 are handed over, all of them in decode, in prefill those up to the last
occupied one. Scores and positions, small beside keys and values, are as wide as the largest layer
and stand in one tensor. Rows of a tower's own inputs: `tightrope.inputs.prepare`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Axis = str | int

# Of the decoder.
INPUTS_EMBEDS = "inputs_embeds"
QUERY_POSITION = "query_position"
QUERY_REACH = "query_reach"
ROPE_POSITION = "rope_position"
SLOT_KEY = "slot_key"
SLOT_VALUE = "slot_value"
SLOT_KEY_SCALE = "slot_key_scale"
SLOT_VALUE_SCALE = "slot_value_scale"
SLOT_SCORE = "slot_score"
SLOT_POSITION = "slot_position"
KV_BUDGET = "kv_budget"
POLICY = "policy"
CONV_STATE = "conv_state"
VISUAL_INDEX = "visual_index"
KEEP_RAMP = "keep_ramp"
LOGITS = "logits"
KEY = "key"
VALUE = "value"
TARGET = "target"
NEXT_SCORE = "next_score"
NEXT_POSITION = "next_position"
NEXT_CONV_STATE = "next_conv_state"
# Of the tower and the selectors.
VISUAL_EMBEDS = "visual_embeds"
DEEPSTACK = "deepstack"
CLS_ATTENTION = "cls_attention"
TOWER_KEYS = "tower_keys"
TOWER_STATES = "tower_states"
TEXT_EMBEDS = "text_embeds"
INDEX = "index"
EMBEDS = "embeds"

POLICY_NUMBERS = 8
FLOAT_SLOTS, INT8_SLOTS = KV_CACHES = ("float", "int8")
"""What slots hold keys and values in: the graph's own float, or int8 with a scale for each one."""
_SCALE_BYTES = 4


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
    """Those that attend, and so hold slots; L."""
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    hidden_size: int
    vocab_size: int
    rope_axes: int = 1
    """3: rotary positions are a time, a row and a column."""
    deepstack: int = 0
    """Levels of a tower that are added to visual tokens behind the first layers."""
    reach: bool = False
    """Whether the tokens of an image attend to all of that image, those behind them too."""
    conv_layers: int = 0
    """Beside those that attend: layers of a short convolution, whose state has a constant size."""
    conv_inputs: int = 0
    """Inputs that such a state holds, each of the model's width."""


Rows = tuple[TensorSpec, ...]


def slot_bytes(head_dim: int, kv_cache: str, float_bytes: int) -> int:
    """Of one key, or value, in a slot; float_bytes: of one of the graph's own floats."""
    return head_dim + _SCALE_BYTES if kv_cache == INT8_SLOTS else head_dim * float_bytes


def numbered(name: str, place: int) -> str:
    """Name of one layer's or one stage's tensor."""
    return f"{name}.{place}"


def decoder_inputs(
    dims: Dims, stages: int = 0, budgeted: bool = True, kv_cache: str = FLOAT_SLOTS
) -> Rows:
    """Inputs of a decoder graph; each in-LLM stage adds how many tokens it keeps.

    budgeted: whether slots may be given up inside the call. A graph that only appends, such as
    standard.prefill, does not read the budget.
    kv_cache: one of KV_CACHES.
    """
    heads, layers = dims.num_key_value_heads, dims.num_hidden_layers
    rows = [
        TensorSpec(INPUTS_EMBEDS, "activation", ("N", "S", dims.hidden_size)),
        TensorSpec(QUERY_POSITION, "int32", ("N", "S")),
        TensorSpec(ROPE_POSITION, "int64", _rope_axes(dims)),
    ]
    if dims.reach:
        rows.append(TensorSpec(QUERY_REACH, "int32", ("N", "S")))
    if dims.deepstack:
        axes = ("N", "S", dims.deepstack, dims.hidden_size)
        rows.append(TensorSpec(DEEPSTACK, "activation", axes))
    rows += slot_rows(dims, kv_cache)
    rows += [
        TensorSpec(SLOT_SCORE, "float32", (layers, "N", heads, "C")),
        TensorSpec(SLOT_POSITION, "int32", (layers, "N", heads, "C")),
        *([TensorSpec(KV_BUDGET, "int64", (layers, heads))] if budgeted else []),
        TensorSpec(POLICY, "float32", (layers, POLICY_NUMBERS)),
    ]
    if dims.conv_layers:
        rows.append(TensorSpec(CONV_STATE, "activation", _conv_axes(dims)))
    if stages:
        rows.append(TensorSpec(VISUAL_INDEX, "int64", ("N", "V")))
        rows += [TensorSpec(numbered(KEEP_RAMP, i), "int64", (f"K{i}",)) for i in range(stages)]
    return tuple(rows)


def slot_rows(dims: Dims, kv_cache: str) -> Rows:
    """Inputs of a decoder graph that are keys and values of slots, layer by layer."""
    axes, in_int8 = ("N", dims.num_key_value_heads, "U"), kv_cache == INT8_SLOTS
    rows, layers = list[TensorSpec](), dims.num_hidden_layers
    for name in (SLOT_KEY, SLOT_VALUE):
        kind = "int8" if in_int8 else "activation"
        rows += _by_layer(name, kind, layers, (*axes, dims.head_dim))
    for name in (SLOT_KEY_SCALE, SLOT_VALUE_SCALE) if in_int8 else ():
        rows += _by_layer(name, "float32", layers, (*axes, 1))
    return tuple(rows)


def _rope_axes(dims: Dims) -> tuple[Axis, ...]:
    return ("N", "S") if dims.rope_axes == 1 else (dims.rope_axes, "N", "S")


def _conv_axes(dims: Dims) -> tuple[Axis, ...]:
    return (dims.conv_layers, "N", dims.hidden_size, dims.conv_inputs)


def decoder_outputs(dims: Dims, stages: int = 0) -> Rows:
    """Outputs of a decoder graph; with stages the layers differ in S and stay apart."""
    heads, width, layers = dims.num_key_value_heads, dims.head_dim, dims.num_hidden_layers
    rows = [TensorSpec(LOGITS, "float32", ("N", dims.vocab_size))]
    for name, dtype, tail in (
        (KEY, "activation", (width,)),
        (VALUE, "activation", (width,)),
        (TARGET, "int32", ()),
    ):
        axes = ("N", heads, "S", *tail)
        if stages:
            rows += _by_layer(name, dtype, layers, axes)
        else:
            rows.append(TensorSpec(name, dtype, (layers, *axes)))
    rows.append(TensorSpec(NEXT_SCORE, "float32", (layers, "N", heads, "C")))
    rows.append(TensorSpec(NEXT_POSITION, "int32", (layers, "N", heads, "C")))
    if dims.conv_layers:
        rows.append(TensorSpec(NEXT_CONV_STATE, "activation", _conv_axes(dims)))
    return tuple(rows)


def _by_layer(name: str, dtype: str, layers: int, axes: Sequence[Axis]) -> list[TensorSpec]:
    """One row a layer, in which U and S are the layer's own."""
    return [
        TensorSpec(
            numbered(name, i), dtype, tuple(f"{a}{i}" if a in ("U", "S") else a for a in axes)
        )
        for i in range(layers)
    ]


def vision_outputs(width: int, head_dim: int, embed: int, signals: Sequence[str]) -> Rows:
    """The visual tokens of a tower of width Dv, and the signals that the selectors ask for."""
    known = {row.name: row for row in _signals(width, head_dim)}
    return (
        TensorSpec(VISUAL_EMBEDS, "activation", ("I", "V", embed)),
        *(known[signal] for signal in signals),
    )


def _signals(width: int, head_dim: int) -> Rows:
    return (
        TensorSpec(CLS_ATTENTION, "float32", ("I", "V")),
        TensorSpec(TOWER_KEYS, "activation", ("I", "V", head_dim)),
        TensorSpec(TOWER_STATES, "activation", ("I", "P", width)),
    )


def select_inputs(vision: Rows, signals: Sequence[str], text_guided: bool) -> Rows:
    """Inputs of one selector's graph; vision: `vision_outputs`, of which it reads `signals`."""
    visual = tuple(row for row in vision if row.name in (VISUAL_EMBEDS, *signals))
    (_, _, embed) = visual[0].axes
    text = (TensorSpec(TEXT_EMBEDS, "activation", ("T", embed)),) if text_guided else ()
    return (*visual, *text, TensorSpec(KEEP_RAMP, "int64", ("K",)))


def select_outputs(embed: int) -> Rows:
    """Kept places of each image, ascending, and their embeddings."""
    return (
        TensorSpec(INDEX, "int64", ("I", "K")),
        TensorSpec(EMBEDS, "activation", ("I", "K", embed)),
    )
