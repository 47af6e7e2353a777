"""One call of a decoder graph: what goes in, by name, and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tightrope.arrays import Array, Counts, Floats, Indices, Ordinals
from tightrope.interface import tensors
from tightrope.interface.tensors import Dims, numbered


@dataclass(frozen=True, slots=True)
class Selection:
    """An in-LLM schedule for one prefill call."""

    schedule: str
    visual_index: Indices
    """[N,V], places of the visual tokens in the call"""
    keeps: tuple[int, ...]
    """Tokens left by each stage, over all images of the call"""
    layers: tuple[int, ...]
    """Layer of each stage"""


@dataclass(frozen=True, slots=True)
class Call:
    """Inputs of one decoder call besides the slots."""

    embeds: Floats
    """[N,S,E]"""
    query_position: Ordinals
    """[N,S], ordinal in the unpruned stream, -1 for padding, which stands last"""
    rope_position: Indices
    """[N,S], or [3,N,S] where positions have three axes"""
    kv_budget: Indices
    """[L,Hkv]"""
    policy: Floats
    """[L,8]"""
    selection: Selection | None = None
    deepstack: Floats | None = None
    """[N,S,D,E], where the decoder reads levels of a tower: zeros but for visual tokens"""
    query_reach: Ordinals | None = None
    """[N,S], where images see themselves whole: the newest ordinal that each token attends to"""

    def tokens_per_layer(self) -> Counts:
        """New tokens that each layer sees, [L]."""
        return new_tokens(len(self.kv_budget), self.query_position.shape[1], self.selection)


def no_levels(dims: Dims, rows: int, length: int) -> Floats | None:
    """`Call.deepstack` of tokens that are not visual; None where the decoder reads no levels."""
    if not dims.deepstack:
        return None
    return np.zeros((rows, length, dims.deepstack, dims.hidden_size), np.float32)


def new_tokens(layers: int, length: int, selection: Selection | None) -> Counts:
    """New tokens that each of the layers sees in a call of `length` tokens, [L]."""
    seen = np.full(layers, length, np.int64)
    if selection is not None:
        visual = selection.visual_index.shape[1]
        for layer, keep in zip(selection.layers, selection.keeps, strict=True):
            seen[layer:] -= visual - keep
            visual = keep
    return seen


class SlotArrays(Protocol):
    """The slots that a call reads."""

    @property
    def keys(self) -> Sequence[Array]:
        """By layer [N,Hkv,U,D]."""

    @property
    def values(self) -> Sequence[Array]:
        """By layer [N,Hkv,U,D]."""

    @property
    def score(self) -> Floats:
        """[L,N,Hkv,C]"""

    @property
    def position(self) -> Ordinals:
        """[L,N,Hkv,C]"""

    @property
    def conv_state(self) -> Array | None:
        """[layers,N,E,inputs] where there are short convolutions."""


@dataclass(frozen=True, slots=True)
class Update:
    """What one call leaves to be committed.

    With in-LLM selection the layers differ in how many new tokens they saw: then key, value and
    target are lists over layers, otherwise they are stacked.
    """

    key: Array | list[Array]
    """[L,N,Hkv,S,D]"""
    value: Array | list[Array]
    target: Ordinals | list[Ordinals]
    """[L,N,Hkv,S], -1 for a token that is not kept"""
    next_score: Floats
    """[L,N,Hkv,C]"""
    next_position: Ordinals
    next_conv_state: Array | None = None
    """As of the slots; the whole of it is new."""


def feeds(call: Call, slots: SlotArrays) -> dict[str, Array]:
    """Inputs of a decoder graph by name; keys and values may be cut behind the occupied slots."""
    return small_feeds(call) | slot_feeds(slots)


def small_feeds(call: Call) -> dict[str, Array]:
    """Those that every call brings anew."""
    named: dict[str, Array] = {
        tensors.INPUTS_EMBEDS: call.embeds,
        tensors.QUERY_POSITION: call.query_position,
        tensors.ROPE_POSITION: call.rope_position,
        tensors.KV_BUDGET: call.kv_budget,
        tensors.POLICY: call.policy,
    }
    if call.deepstack is not None:
        named[tensors.DEEPSTACK] = call.deepstack
    if call.query_reach is not None:
        named[tensors.QUERY_REACH] = call.query_reach
    if call.selection is not None:
        named[tensors.VISUAL_INDEX] = call.selection.visual_index
        for stage, keep in enumerate(call.selection.keeps):
            named[numbered(tensors.KEEP_RAMP, stage)] = keep_ramp(keep)
    return named


def slot_feeds(slots: SlotArrays) -> dict[str, Array]:
    """Those that are the slots themselves."""
    named: dict[str, Array] = {
        tensors.SLOT_SCORE: slots.score,
        tensors.SLOT_POSITION: slots.position,
    }
    for name, layers in ((tensors.SLOT_KEY, slots.keys), (tensors.SLOT_VALUE, slots.values)):
        named |= {numbered(name, i): array for i, array in enumerate(layers)}
    if slots.conv_state is not None:
        named[tensors.CONV_STATE] = slots.conv_state
    return named


def keep_ramp(keep: int) -> Indices:
    """How `keep` is handed to a graph: as a length."""
    return np.arange(keep)


def update_of(outputs: Mapping[str, Array]) -> tuple[Floats, Update]:
    """logits [N,vocab] and the update that a decoder graph's outputs hold."""
    stacked = tensors.KEY in outputs
    layers = range(outputs[tensors.NEXT_SCORE].shape[0])
    key, value, target = (
        outputs[name] if stacked else [outputs[numbered(name, i)] for i in layers]
        for name in (tensors.KEY, tensors.VALUE, tensors.TARGET)
    )
    update = Update(
        key=key,
        value=value,
        target=target,
        next_score=outputs[tensors.NEXT_SCORE],
        next_position=outputs[tensors.NEXT_POSITION],
        next_conv_state=outputs.get(tensors.NEXT_CONV_STATE),
    )
    return outputs[tensors.LOGITS], update
