"""What a vision family's adapter answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from tightrope.bundle import VisionInfo

Tensors = tuple[torch.Tensor, ...]


class VisionAdapter(Protocol):
    """How one family's tower is traced, and how the host prepares its input."""

    @property
    def signals(self) -> tuple[str, ...]:
        """What the tower can hand to selectors."""

    def check(self, config: Any) -> None:
        """Raises UnsupportedModel for a tower of this family that cannot be exported."""

    def info(
        self, config: Any, resolutions: Sequence[int] | None, signals: Sequence[str], token: str
    ) -> VisionInfo:
        """Facts for the manifest; raises InputError for a resolution that does not fit."""

    def tower(self, model: Any, signals: Sequence[str]) -> torch.nn.Module:
        """(pixel_values [I,3,H,W], position_table [1,P,Dv]) -> visual_embeds and `signals`."""

    def projector(self, model: Any) -> torch.nn.Module:
        """Tower states [I,T,Dv] -> embeddings [I,T,E]."""

    def position_table(self, model: Any, resolution: int) -> torch.Tensor:
        """The tower's position embeddings at `resolution`, [1,P,Dv]."""

    def reference_embeds(self, model: Any, pixel_values: torch.Tensor) -> torch.Tensor:
        """What Hugging Face's model makes of pixel_values [I,3,R,R]: [I,V,E]."""

    def preprocessor(self, processor: dict[str, Any]) -> dict[str, Any]:
        """preprocessor.json from the checkpoint's processor config."""
