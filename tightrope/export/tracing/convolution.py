"""The seam for layers of a short convolution: what they ask of transformers' caches.

Such a layer keeps the last inputs of its convolution. The cache that is handed to the traced model
answers with the graph's input and notes what the next call gets.
"""

from __future__ import annotations

from typing import Any

import torch


class ConvStates:
    """States of one call; attention goes through its own seam."""

    def __init__(self, conv_state: torch.Tensor, query_position: torch.Tensor) -> None:
        """conv_state: [layers,N,E,inputs]. query_position: [N,S], -1 for padding, which is last."""
        self._states, self._valid = conv_state, (query_position >= 0).sum(1)
        self.results: list[torch.Tensor] = []
        """Per layer [N,E,inputs]: the newest inputs of valid tokens."""

    def get_conv_state(self, layer: int, state_idx: int = 0) -> None:
        """None, so that one expression serves any number of tokens."""

    def is_recording_past(self, layer: int) -> bool:
        """As above."""
        return True

    def update(self, key: Any, value: Any, layer: int) -> tuple[Any, Any]:
        """Keys and values as they are: slots are read where the layer attends."""
        return key, value

    def update_conv_state(self, inputs: torch.Tensor, layer: int, **_: Any) -> torch.Tensor:
        """The inputs [N,E,S] of a convolution behind those that are kept."""
        before = self._states[len(self.results)]
        whole = torch.cat([before, inputs], -1)
        newest = self._valid[:, None] + torch.arange(before.shape[2], device=whole.device)
        index = newest[:, None].expand(-1, whole.shape[1], -1)
        self.results.append(torch.gather(whole, 2, index))
        return whole
