"""What a schedule states of itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tightrope.export.schedules.scores import last_query_attention

if TYPE_CHECKING:
    import torch

    from tightrope.export.tracing.attention import LayerAttention


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A published way to drop visual tokens between decoder layers."""

    name: str
    paper: str
    layers: tuple[int, ...]
    """Tokens are dropped at the input of each of these layers (first layer: 0; never that one)."""
    shares: tuple[float, ...] = (1.0,)
    """Tokens that each stage leaves, as a multiple of the request's keep; the last is 1."""
    default_keep: str
    score: Callable[[LayerAttention], torch.Tensor] = last_query_attention
    """What the tokens [N,S] of the layer before a stage are worth, float32."""
