"""The torch half of a vision tower: how it is traced, and what the host needs from its weights.

The other half, in numpy, lies in `inputs/prepare/`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from tightrope.arrays import Array, Floats
from tightrope.export.accounting import WithoutEffect
from tightrope.inputs.vision import VisionInfo


class TowerModel(Protocol):
    """What a family's tower answers; `model` and `config` are Hugging Face's."""

    def signals(self, config: Any) -> tuple[str, ...]:
        """What the tower can hand to selectors."""

    def check(self, config: Any) -> None:
        """Raises UnsupportedModel for a tower of this family that cannot be exported."""

    def info(
        self,
        config: Any,
        resolutions: Sequence[int] | None,
        signals: Sequence[str],
        token: str,
        preprocessor: Mapping[str, Any],
        tokenizer: Any,
    ) -> VisionInfo:
        """Facts for the manifest; raises InputError for a resolution that does not fit.

        token: the placeholder as it is written. preprocessor: what `preprocessor` returned.
        """

    def width(self, config: Any) -> int:
        """Dv, of the states that the projector reads."""

    def module(self, model: Any, signals: Sequence[str]) -> torch.nn.Module:
        """What is traced: the inputs of the numpy half's rows -> visual_embeds and `signals`."""

    def projector(self, model: Any) -> torch.nn.Module:
        """Tower states [I,T,Dv] -> embeddings [I,T,E]."""

    def tables(self, model: Any, info: VisionInfo) -> dict[str, Floats]:
        """Arrays for positions.npz, from which the numpy half makes inputs."""

    def separators(self, model: Any) -> torch.Tensor:
        """Embeddings [n,E] that the host puts between visual tokens, n as `info` says."""

    def reference_embeds(self, model: Any, inputs: Mapping[str, Array]) -> torch.Tensor:
        """What Hugging Face's model makes of one image's inputs: [I,V,E], as the graph gives it."""

    def preprocessor(
        self, config: Any, folder: Path, stored: Mapping[str, Any]
    ) -> tuple[dict[str, Any], list[WithoutEffect]]:
        """preprocessor.json, and keys of the image processor that are without effect.

        stored: the image processor as a file in `folder` has it. Raises UnsupportedModel naming
        what is not understood.
        """


class Part(torch.nn.Module):
    """A part of Hugging Face's model, as it is traced."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model


class TowerPart(Part):
    """The tower and what follows it, whose layers attend by a function of ours."""

    def __init__(self, model: Any, tower: Any, attention: str) -> None:
        super().__init__(model)
        for config in (model.config.vision_config, tower.config):
            config._attn_implementation_internal = attention


def own_first(asked: Sequence[int] | None, own: int) -> tuple[int, ...]:
    """Those resolutions, or the checkpoint's own alone; its own stands first where it is one."""
    listed = asked or (own,)
    return tuple(dict.fromkeys([own, *listed] if own in listed else listed))


@contextlib.contextmanager
def positions_from(table: torch.Tensor, embeddings: Any) -> Iterator[None]:
    """Inside, Hugging Face's `embeddings` of patches add this table [1,P,Dv] to them."""
    embeddings.interpolate_pos_encoding = lambda *_: table
    try:
        yield
    finally:
        del embeddings.interpolate_pos_encoding
