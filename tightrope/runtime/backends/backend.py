"""What a backend does: hold a bundle's graphs and run them over slots that it makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from tightrope.arrays import Array, Floats, Indices
from tightrope.interface.calls import Call, Update
from tightrope.runtime.slots import Slots


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

    def vision(self, inputs: Mapping[str, Array]) -> VisualTokens:
        """Visual tokens of the tower's inputs, by name."""

    def select(
        self, method: str, tokens: VisualTokens, text_embeds: Floats, keep: int
    ) -> tuple[Indices, Floats]:
        """index [I,keep] and embeds [I,keep,E] by selector `method`; text_embeds [T,E]."""

    def prefill(self, slots: Slots, call: Call, cancel: Cancel) -> tuple[Floats, Update]:
        """Logits [N,vocab] of each row's last valid token, and what to commit; any S.

        Where capacity has room for all new tokens nothing leaves inside the call, even above the
        budget: whoever owns the slots trims them.
        """

    def decode(self, slots: Slots, call: Call) -> tuple[Floats, Update]:
        """The same for S = 1. The returned arrays are valid until the next call."""
