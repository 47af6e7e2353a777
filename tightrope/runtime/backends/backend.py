"""What a backend does: hold a bundle's graphs and run them over slots that it makes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tightrope.runtime.slots import Slots, Update

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class VisualTokens:
    """What the vision graph says of I images of one size."""

    embeds: Floats
    """[I,V,E]"""
    signals: dict[str, Floats]
    """By name, as the bundle's selectors ask for them."""

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.embeds.nbytes + sum(signal.nbytes for signal in self.signals.values())


@dataclass(frozen=True, slots=True)
class Call:
    """Inputs of one decoder call besides the slots."""

    embeds: Floats
    """[N,S,E]"""
    query_position: npt.NDArray[np.int32]
    """[N,S], ordinal in the unpruned stream, -1 for padding"""
    rope_position: Indices
    """[N,S]"""
    budget: Indices
    """[L]"""
    policy: Floats
    """[8]"""


@dataclass(frozen=True, slots=True)
class Selection:
    """An in-LLM schedule for one prefill call."""

    schedule: str
    visual_index: Indices
    """[N,V], places of the visual tokens in the call"""
    keep: tuple[int, ...]
    """Tokens left by each stage, over all images of the call"""
    layers: tuple[int, ...]
    """Layer of each stage"""


class Cancel:
    """Asks a running call to stop; safe to ask from another thread, at any time."""

    def __init__(self) -> None:
        self.asked = False
        self._hooks: list[Any] = []

    def ask(self) -> None:
        """Stop as soon as may be."""
        self.asked = True
        for hook in self._hooks:
            hook()

    def on_ask(self, hook: Any) -> None:
        """Call `hook` when asked; at once if that was before."""
        self._hooks.append(hook)
        if self.asked:
            hook()


class Cancelled(Exception):
    """A call was stopped because it was asked to; never leaves the runtime."""


class Backend(Protocol):
    """One way to run a bundle."""

    name: str

    def make_slots(self, rows: int) -> Slots:
        """Empty slots for `rows` rows."""

    def vision(self, pixel_values: Floats, resolution: int) -> VisualTokens:
        """Visual tokens of pixel_values [I,3,R,R]."""

    def select(
        self, method: str, tokens: VisualTokens, text_embeds: Floats, keep: int
    ) -> tuple[Indices, Floats]:
        """index [I,keep] and embeds [I,keep,E] by selector `method`; text_embeds [T,E]."""

    def prefill(
        self, slots: Slots, call: Call, cancel: Cancel, selection: Selection | None = None
    ) -> tuple[Floats, Update]:
        """Logits [N,vocab] of each row's last valid token, and what to commit; any S."""

    def decode(self, slots: Slots, call: Call) -> tuple[Floats, Update]:
        """The same for S = 1. The returned arrays are valid until the next call."""


def tokens_per_layer(layers: int, length: int, selection: Selection | None) -> Indices:
    """New tokens that each layer sees, [L], in a call of `length` tokens."""
    seen = np.full(layers, length, np.int64)
    if selection is not None:
        visual = selection.visual_index.shape[1]
        for layer, keep in zip(selection.layers, selection.keep, strict=True):
            seen[layer:] -= visual - keep
            visual = keep
    return seen


def valid_per_layer(call: Call, layers: int, selection: Selection | None) -> Indices:
    """Valid new tokens of each layer and row, [L,N]."""
    valid = (call.query_position >= 0).sum(1)
    dropped = call.query_position.shape[1] - tokens_per_layer(
        layers, call.query_position.shape[1], selection
    )
    return np.asarray(valid[None] - dropped[:, None])
