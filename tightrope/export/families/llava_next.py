"""LLaVA-NeXT and LLaVA-OneVision: LLaVA's tower over the whole image and a grid of tiles."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers.models.llava_next.image_processing_pil_llava_next import (
    LlavaNextImageProcessorPil,
)
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
    LlavaOnevisionImageProcessorPil,
)

from tightrope.arrays import Array, Floats
from tightrope.errors import UnsupportedModel
from tightrope.export.accounting import WithoutEffect
from tightrope.export.families.llava import Llava, leading
from tightrope.export.families.pixels import WAY_OUT
from tightrope.export.families.tiles import check_tile, checked_resolutions, tile_pixels
from tightrope.inputs.prepare.anyres import NEWLINE
from tightrope.inputs.prepare.clip import PIXEL_VALUES
from tightrope.inputs.prepare.tiles import TILES, TILING
from tightrope.inputs.vision import VisionInfo

_PINPOINTS = "image_grid_pinpoints"
_ASPECT_RATIO = re.compile(r"anyres_max_(\d+)")


class LlavaNext(Llava):
    """The tower of `LlavaNextForConditionalGeneration`, and of LLaVA-OneVision's."""

    def check(self, config: Any) -> None:
        super().check(config)
        vision, ratio = config.vision_config, getattr(config, "vision_aspect_ratio", None)
        if ratio is not None and not _ASPECT_RATIO.fullmatch(ratio):
            raise UnsupportedModel(
                f"vision_aspect_ratio is {ratio!r}; accepted: anyres_max_ and a number of tiles"
            )
        if ratio is not None and leading(config):
            raise UnsupportedModel(
                f"the {config.model_type} model has a tower of type {vision.model_type!r}, whose "
                "attention cannot be scaled down with its tokens; accepted: siglip_vision_model"
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
        vision, tile = config.vision_config, config.vision_config.image_size
        grids = self._grids(config, preprocessor[TILING])
        sides = sorted({max(grid) for grid in grids})
        side = tile // vision.patch_size
        ratio = getattr(config, "vision_aspect_ratio", None)
        matched = ratio and _ASPECT_RATIO.fullmatch(ratio)
        return VisionInfo(
            kind="anyres",
            image_token_id=config.image_token_id,
            image_token=token,
            resolutions=checked_resolutions(resolutions, sorted({tile, *sides}), tile),
            signals=tuple(signals),
            sizes={
                "tile_size": tile,
                "tokens_per_side": side,
                "positions": side**2 + leading(config),
                "hidden_size": vision.hidden_size,
                "head_dim": vision.hidden_size // vision.num_attention_heads,
                "most_tiles": int(matched[1]) if matched else 0,
            },
            lists={"grids": tuple(length for grid in grids for length in grid)},
            ids={NEWLINE: (config.get_text_config().vocab_size,)},
            separators=1,
        )

    def _grids(self, config: Any, tiling: Mapping[str, Any]) -> list[list[int]]:
        """[height, width] of every grid; raises UnsupportedModel for what makes no tiles."""
        tile = config.vision_config.image_size
        for size in (tiling["size"], tiling["crop_size"]):
            for made in (size or {}).values():
                check_tile(made, tile)
        grids: Any = tiling[_PINPOINTS]
        if grids != config.image_grid_pinpoints:
            raise UnsupportedModel(
                f"the image processor's {_PINPOINTS} are not those of config.json; {WAY_OUT}"
            )
        for grid in grids:
            if len(grid) != 2 or any(length < 1 or length % tile for length in grid):
                raise UnsupportedModel(
                    f"{_PINPOINTS} have {grid}, which is no height and width in tiles of {tile}; "
                    f"{WAY_OUT}"
                )
        return [[*grid] for grid in grids]

    def tables(self, model: Any, info: VisionInfo) -> dict[str, Floats]:
        """The position embeddings [1,P,Dv] that all tiles share."""
        embeddings = model.model.vision_tower.embeddings
        table = embeddings.position_embedding.weight[None]
        return {TILES: table.detach().float().numpy()}

    def separators(self, model: Any) -> torch.Tensor:
        newline: torch.Tensor = model.model.image_newline.detach()
        return newline[None]

    def reference_embeds(self, model: Any, inputs: Mapping[str, Array]) -> torch.Tensor:
        """By tiles; how they are packed is known to the numpy half alone."""
        config, inner = model.config, model.model
        pixels = torch.from_numpy(inputs[PIXEL_VALUES])
        states = inner.vision_tower(pixels, output_hidden_states=True).hidden_states
        chosen = states[config.vision_feature_layer][:, leading(config) :]
        embeds: torch.Tensor = inner.multi_modal_projector(chosen)
        return embeds

    def preprocessor(
        self, config: Any, folder: Path, stored: Mapping[str, Any]
    ) -> tuple[dict[str, Any], list[WithoutEffect]]:
        classes = (LlavaNextImageProcessorPil, LlavaOnevisionImageProcessorPil)
        return tile_pixels(folder, stored, classes, (_PINPOINTS,))


MODEL = LlavaNext()
