"""The seams: attention functions that Hugging Face's layers call instead of their own.

In decoder layers q and k arrive after q-norm and RoPE, and a context variable says which slots the
layer reads; in a tower the attention of one block can be read out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

DECODER_ATTENTION = "tightrope"
# transformers hands packed towers their cu_seqlens only if the name contains "flash".
TOWER_ATTENTION = "tightrope_flash_tower"
PACKED_ATTENTION = "tightrope_flash_packed"


@dataclass(frozen=True, slots=True)
class LayerAttention:
    """What one decoder layer attends with; in-LLM stages score tokens with it."""

    query: torch.Tensor
    """[N,Hq,S,D], scaled"""
    key: torch.Tensor
    """[N,Hkv,S,D]"""
    slot_key: torch.Tensor
    """[N,Hkv,U,D]"""
    slot_position: torch.Tensor
    """[N,Hkv,C]"""
    query_position: torch.Tensor
    """[N,S]"""


@dataclass
class DecoderState:
    """What the decoder's layers read and leave while they are traced."""

    slots: Sequence[tuple[torch.Tensor, ...]]
    """Per layer that attends key, value, score, position."""
    query_position: torch.Tensor
    kv_budget: torch.Tensor
    policy: torch.Tensor
    query_reach: torch.Tensor | None = None
    """None where no token attends to later ones."""
    on_attention: Callable[[int, LayerAttention], None] | None = None
    """Told the layer and what it attends with."""
    results: list[tuple[torch.Tensor, ...]] = field(default_factory=list)
    """Per layer that attends key, value, target, score, position."""


class TowerState:
    """Query and key of the attention of block `block` (first: 0), kept for selectors."""

    def __init__(self, block: int) -> None:
        self.block = block
        self.count = 0
        self.query: torch.Tensor | None = None
        self.key: torch.Tensor | None = None
        self.scaling = 1.0

    def cls_attention(self) -> torch.Tensor:
        """Softmax attention of CLS to every token, mean over heads, float32 [I,1+V]."""
        assert self.query is not None and self.key is not None
        logits = self.query[:, :, :1].float() * self.scaling @ self.key.float().transpose(2, 3)
        return logits.softmax(-1).mean(1)[:, 0]

    def keys(self) -> torch.Tensor:
        """Keys, mean over heads, [I,1+V,dh]."""
        assert self.key is not None
        return self.key.mean(1)


DECODER: ContextVar[DecoderState] = ContextVar("decoder")
TOWER: ContextVar[TowerState] = ContextVar("tower")
State = TypeVar("State")


@contextlib.contextmanager
def attending(variable: ContextVar[State], state: State) -> Iterator[None]:
    """Attention that is traced inside finds `state` in DECODER or TOWER."""
    token = variable.set(state)
    try:
        yield
    finally:
        variable.reset(token)


def attend_slots(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """A decoder layer's attention over its slots and the new tokens: one node of our own op."""
    state, layer = DECODER.get(), module.layer_idx
    place = len(state.results)  # among the layers that attend
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    slots = state.slots[place]
    out, target, score, position = torch.ops.tightrope.slot_attention(
        query,
        key,
        value,
        *slots,
        state.query_position,
        state.kv_budget[place],
        state.policy[place],
        state.query_position if state.query_reach is None else state.query_reach,
        scale,
        softcap or 0.0,
        sliding_window or 0,
    )
    state.results.append((key, value, target, score, position))
    if state.on_attention is not None:
        given = LayerAttention(query * scale, key, slots[0], slots[3], state.query_position)
        state.on_attention(layer, given)
    return out.transpose(1, 2), None


def attend_tower(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """A tower block's attention: product and softmax as they are, TensorRT 10.3 parses no other."""
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    state = TOWER.get()
    if state.count == state.block:
        state.query, state.key, state.scaling = query, key, scaling
    state.count += 1
    weight = ((query * scaling) @ key.transpose(2, 3)).float().softmax(-1).to(query.dtype)
    return (weight @ value).transpose(1, 2), None


def attend_packed(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    scaling: float | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int = 0,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """A block of a packed tower: one node of our own op, in which images and windows stay apart."""
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    out = torch.ops.tightrope.varlen_attention(
        query, key, value, cu_seq_lens_q, scale, max_length_q
    )
    return out.transpose(1, 2), None
