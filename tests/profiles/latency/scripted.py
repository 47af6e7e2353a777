"""A machine that computes nothing, and takes times that are known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tightrope.arrays import Array
from tightrope.runtime.backends.backend import VisualTokens
from tightrope.runtime.backends.null import NullBackend
from tightrope.runtime.cancel import Cancel
from tightrope.runtime.model import Model

CALL_MS, TOKEN_MS, STEP_MS, SLOT_MS = 2.0, 0.5, 4.0, 0.01
IMAGE_MS = {28: 3.0, 56: 11.0, 84: 25.0}
SELECT_MS = {"divprune": 1.0, "flashvlm": 2.0, "visionzip": 0.5}


class Clock:
    """Seconds that pass only where the backend works."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def spend(self, ms: float) -> None:
        self.now += ms / 1e3


class Scripted(NullBackend):
    """Computes nothing, and takes a time that is known."""

    def __init__(self, real: Model, clock: Clock, slower: float = 1.0) -> None:
        super().__init__(real.bundle.manifest.dims, lambda call: 5)
        self._clock, self._slower, self._tower = clock, slower, real.bundle.manifest.tower

    def vision(self, inputs: Mapping[str, Array], cancel: Cancel) -> VisualTokens:
        images, _, side, _ = inputs["pixel_values"].shape
        self._clock.spend(images * IMAGE_MS[side] * self._slower)
        assert self._tower is not None
        tokens = self._tower.most_tokens(side)
        return VisualTokens(np.zeros((images, tokens, self._dims.hidden_size), np.float32), {})

    def select(self, method: str, *rest: Any) -> Any:
        self._clock.spend(SELECT_MS[method] * self._slower)
        return super().select(method, *rest)

    def prefill(self, slots: Any, call: Any, *rest: Any) -> Any:
        self._clock.spend((CALL_MS + TOKEN_MS * call.tokens_per_layer().mean()) * self._slower)
        return super().prefill(slots, call, *rest)

    def decode(self, slots: Any, call: Any) -> Any:
        self._clock.spend((STEP_MS + SLOT_MS * slots.occupied.mean()) * self._slower)
        return super().decode(slots, call)


def scripted(real: Model, slower: float = 1.0) -> tuple[Model, Clock]:
    """The bundle of `real` on such a machine, and its clock."""
    clock = Clock()
    return Model(real.bundle, Scripted(real, clock, slower), clock), clock
