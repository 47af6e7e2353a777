"""What a backend does: hold a bundle's graphs and run them over slots that it makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from tightrope.arrays import Array, Counts, Floats, Indices
from tightrope.interface.calls import Call, Update
from tightrope.runtime.cancel import Cancel
from tightrope.runtime.likeliest import Logits
from tightrope.runtime.slots import Slots
from tightrope.runtime.storage import Storage


@dataclass(frozen=True, slots=True)
class VisualTokens:
    """What the vision graph says of I images of one size."""

    embeds: Floats
    """[I,V,E]"""
    signals: dict[str, Floats]
    """By name what goes with each: levels of DeepStack, and what the bundle's selectors ask for."""

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.embeds.nbytes + sum(signal.nbytes for signal in self.signals.values())


class Backend(Protocol):
    """One way to run a bundle."""

    name: str
    device: str
    """What it computes on; one thread serves all bundles of a device."""
    threads: int
    """Of the CPU, that it computes with."""
    notes: list[str]
    """To be said with the next answer, by whoever takes them out."""

    def make_storage(self, rows: int, capacity: Counts) -> Storage:
        """Empty slots of `capacity` [L] for `rows` rows."""

    def vision(self, inputs: Mapping[str, Array], cancel: Cancel) -> VisualTokens:
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

    def decode(self, slots: Slots, call: Call) -> tuple[Logits, Update]:
        """The same for S = 1. What is returned is valid until the next call."""
