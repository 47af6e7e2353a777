"""Idefics3 and SmolVLM: a SigLIP-like tower over tiles, tokens shuffled into fewer, wider ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from tightrope.arrays import Array, Floats
from tightrope.errors import UnsupportedModel
from tightrope.export.accounting import WithoutEffect
from tightrope.export.families.pixels import WAY_OUT
from tightrope.export.families.tiles import (
    check_tile,
    checked_resolutions,
    ids_between,
    tile_pixels,
)
from tightrope.export.families.tower import Part, TowerPart
from tightrope.export.tracing.attention import TOWER, TOWER_ATTENTION, TowerState, attending
from tightrope.inputs.prepare.clip import PIXEL_VALUES
from tightrope.inputs.prepare.idefics import END, LAST, LINE, LONGEST_SIDE, WHOLE, place
from tightrope.inputs.prepare.tiles import TILES, TILING
from tightrope.inputs.vision import VisionInfo

_MARK, _WHOLE = "<fake_token_around_image>", "<global-img>"
_SPLITS, _TILE = "do_image_splitting", "max_image_size"


class Idefics:
    """The tower of `Idefics3ForConditionalGeneration` and of `SmolVLMForConditionalGeneration`."""

    def signals(self, config: Any) -> tuple[str, ...]:
        return ()  # no CLS, by which selectors judge

    def check(self, config: Any) -> None:
        vision, factor = config.vision_config, config.scale_factor
        for name in ("image_size", "patch_size"):
            if not isinstance(getattr(vision, name), int):
                raise UnsupportedModel(
                    f"vision_config has {name} {getattr(vision, name)!r}; accepted: one number"
                )
        side = vision.image_size // vision.patch_size
        if vision.image_size % vision.patch_size or side % factor or vision.image_size % 2:
            raise UnsupportedModel(
                f"the tower's tiles of {vision.image_size} pixels are no even, whole number of "
                f"{factor} x {factor} patches of {vision.patch_size}"
            )

    def info(
        self,
        config: Any,
        resolutions: Sequence[int] | None,
        signals: Sequence[str],
        token: str,
        preprocessor: Mapping[str, Any],
        tokenizer: Any,
    ) -> VisionInfo:
        vision, tiling = config.vision_config, preprocessor[TILING]
        tile, splits = vision.image_size, bool(tiling[_SPLITS])
        check_tile((tiling[_TILE] or {}).get("longest_edge"), tile)
        own = (tiling["size"] or {}).get("longest_edge")
        if not isinstance(own, int) or not tile <= own <= LONGEST_SIDE:
            raise UnsupportedModel(
                f"the image processor has size {tiling['size']}; accepted: a longest_edge of "
                f"{tile} to {LONGEST_SIDE} pixels; {WAY_OUT}"
            )
        sides = checked_resolutions(resolutions, range(tile, own + 1), tile)
        side = tile // vision.patch_size
        return VisionInfo(
            kind="idefics",
            image_token_id=config.image_token_id,
            image_token=token,
            resolutions=sides,
            signals=tuple(signals),
            sizes={
                "tile_size": tile,
                "tokens_per_side": side // config.scale_factor,
                "positions": side**2,
                "hidden_size": vision.hidden_size,
                "head_dim": vision.hidden_size // vision.num_attention_heads,
                "splits": int(splits),
            },
            ids=_separators(tokenizer, token, -(-max(sides) // tile) if splits else 0),
        )

    def width(self, config: Any) -> int:
        return int(config.vision_config.hidden_size * config.scale_factor**2)

    def module(self, model: Any, signals: Sequence[str]) -> torch.nn.Module:
        return _Tower(model)

    def projector(self, model: Any) -> torch.nn.Module:
        return _Projector(model)

    def tables(self, model: Any, info: VisionInfo) -> dict[str, Floats]:
        """What Hugging Face adds to the patches of a tile [1,P,Dv]: buckets decide which row."""
        embeddings = model.model.vision_model.embeddings
        side = embeddings.image_size // embeddings.patch_size
        found: list[torch.Tensor] = []
        hook = embeddings.position_embedding.register_forward_hook(
            lambda _, arguments, rows: found.append(rows)
        )
        try:
            kind = embeddings.patch_embedding.weight.dtype
            blank = torch.zeros(1, 3, embeddings.image_size, embeddings.image_size, dtype=kind)
            embeddings(blank, torch.ones(1, side, side, dtype=torch.bool))
        finally:
            hook.remove()
        return {TILES: found[0].detach().float().numpy()}

    def separators(self, model: Any) -> torch.Tensor:
        return torch.empty(0, model.config.text_config.hidden_size)

    def reference_embeds(self, model: Any, inputs: Mapping[str, Array]) -> torch.Tensor:
        pixels = torch.from_numpy(inputs[PIXEL_VALUES])
        (embeds,) = model.model.get_image_features(pixels[None]).pooler_output
        tiles: torch.Tensor = embeds.reshape(len(pixels), -1, embeds.shape[-1])
        return tiles

    def preprocessor(
        self, config: Any, folder: Path, stored: Mapping[str, Any]
    ) -> tuple[dict[str, Any], list[WithoutEffect]]:
        classes = (Idefics3ImageProcessorPil, SmolVLMImageProcessorPil)
        return tile_pixels(folder, stored, classes, (_SPLITS, _TILE))


def _separators(tokenizer: Any, token: str, across: int) -> dict[str, tuple[int, ...]]:
    """Ids of what stands between tokens; across: tiles along the longer side."""
    texts = {WHOLE: _MARK + _WHOLE, END: _MARK}
    if across:
        texts |= {LINE: "\n", LAST: "\n\n"}
        for row in range(1, across + 1):
            for column in range(1, across + 1):
                texts[place(row, column)] = f"{_MARK}<row_{row}_col_{column}>"
    return {name: ids_between(tokenizer, token, text, token) for name, text in texts.items()}


class _Tower(TowerPart):
    """Tower and connector; positions come from outside."""

    def __init__(self, model: Any) -> None:
        super().__init__(model, model.model.vision_model, TOWER_ATTENTION)

    def forward(self, pixel_values: torch.Tensor, position_table: torch.Tensor) -> Any:
        tower = self.model.model.vision_model
        patches = tower.embeddings.patch_embedding(pixel_values)
        hidden = patches.flatten(2).transpose(1, 2) + position_table
        with attending(TOWER, TowerState(0)):
            for layer in tower.encoder.layers:
                hidden = layer(hidden, None)
        return (self.model.model.connector(tower.post_layernorm(hidden)),)


class _Projector(Part):
    def forward(self, states: torch.Tensor) -> torch.Tensor:
        embeds: torch.Tensor = self.model.model.connector.modality_projection(states)
        return embeds


MODEL = Idefics()
