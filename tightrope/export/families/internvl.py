"""InternVL: a tower with CLS over tiles and the whole, tokens shuffled into fewer, wider ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

from tightrope.arrays import Array, Floats
from tightrope.errors import UnsupportedModel
from tightrope.export.accounting import WithoutEffect
from tightrope.export.families.llava import Projector
from tightrope.export.families.pixels import WAY_OUT
from tightrope.export.families.tiles import (
    check_tile,
    checked_resolutions,
    tile_pixels,
)
from tightrope.export.families.tower import TowerPart, positions_from
from tightrope.export.tracing.attention import TOWER, TOWER_ATTENTION, TowerState, attending
from tightrope.inputs.prepare.clip import PIXEL_VALUES
from tightrope.inputs.prepare.internvl import END, START
from tightrope.inputs.prepare.tiles import TILES, TILING
from tightrope.inputs.vision import VisionInfo

_LEAST, _MOST = "min_patches", "max_patches"


class InternVl:
    """The tower of `InternVLForConditionalGeneration`."""

    def signals(self, config: Any) -> tuple[str, ...]:
        # CLS attends to patches, four of which are a token, and is not projected.
        return ()

    def check(self, config: Any) -> None:
        vision, ratio = config.vision_config, config.downsample_ratio
        (high, wide), (down, across) = vision.image_size, vision.patch_size
        factor = round(1 / ratio) if ratio else 0
        if high != wide or down != across or factor < 1 or factor * ratio != 1:
            raise UnsupportedModel(
                f"the tower has image_size {[high, wide]}, patch_size {[down, across]} and "
                f"downsample_ratio {ratio}; accepted: squares, and one by a whole number"
            )
        if high % down or high // down % factor:
            raise UnsupportedModel(
                f"the tower's tiles of {high} pixels are no whole number of {factor} x {factor} "
                f"patches of {down}"
            )
        if not vision.use_absolute_position_embeddings:
            raise UnsupportedModel("use_absolute_position_embeddings is false; accepted: true")
        depth, layer = vision.num_hidden_layers, config.vision_feature_layer
        if not isinstance(layer, int) or not (1 <= layer <= depth or -depth <= layer <= -1):
            raise UnsupportedModel(
                f"vision_feature_layer is {layer!r}, the tower has {depth} layers; accepted: one "
                f"of 1..{depth}, or counted from the end"
            )
        if config.vision_feature_select_strategy != "default":
            raise UnsupportedModel(
                f"vision_feature_select_strategy is {config.vision_feature_select_strategy!r}; "
                "accepted: 'default', which leaves CLS out"
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
        (tile, _), (patch, _) = vision.image_size, vision.patch_size
        for made in (tiling["size"] or {"height": None}).values():
            check_tile(made, tile)
        least, most = tiling[_LEAST], tiling[_MOST]
        if not (isinstance(least, int) and isinstance(most, int) and 1 <= least <= most):
            raise UnsupportedModel(
                f"the image processor has {_LEAST} {least!r} and {_MOST} {most!r}; accepted: whole "
                f"numbers, the first no larger; {WAY_OUT}"
            )
        lowest, own = (math.ceil(tile * math.sqrt(tiles)) for tiles in (least, most))
        side = tile // patch
        return VisionInfo(
            kind="internvl",
            image_token_id=config.image_token_id,
            image_token=token,
            resolutions=checked_resolutions(resolutions, range(lowest, own + 1), tile),
            signals=tuple(signals),
            sizes={
                "tile_size": tile,
                "tokens_per_side": round(side * config.downsample_ratio),
                "positions": side**2 + 1,
                "hidden_size": vision.hidden_size,
                "head_dim": vision.hidden_size // vision.num_attention_heads,
                "least_tiles": least,
            },
            ids={START: _named(tokenizer, "start_image"), END: _named(tokenizer, "end_image")},
        )

    def width(self, config: Any) -> int:
        return int(config.vision_config.hidden_size * round(1 / config.downsample_ratio) ** 2)

    def module(self, model: Any, signals: Sequence[str]) -> torch.nn.Module:
        return _Tower(model)

    def projector(self, model: Any) -> torch.nn.Module:
        return Projector(model)

    def tables(self, model: Any, info: VisionInfo) -> dict[str, Floats]:
        """The position embeddings [1,P,Dv] that all tiles share."""
        table = model.model.vision_tower.embeddings.position_embeddings
        return {TILES: table.detach().float().numpy()}

    def separators(self, model: Any) -> torch.Tensor:
        return torch.empty(0, model.config.text_config.hidden_size)

    def reference_embeds(self, model: Any, inputs: Mapping[str, Array]) -> torch.Tensor:
        pixels = torch.from_numpy(inputs[PIXEL_VALUES])
        embeds: torch.Tensor = model.model.get_image_features(pixels).pooler_output
        return embeds

    def preprocessor(
        self, config: Any, folder: Path, stored: Mapping[str, Any]
    ) -> tuple[dict[str, Any], list[WithoutEffect]]:
        """Whatever the file says of crop_to_patches: Hugging Face's processor asks for them."""
        own = ("crop_to_patches", _LEAST, _MOST)
        return tile_pixels(folder, stored, (GotOcr2ImageProcessorPil,), own)


def _named(tokenizer: Any, name: str) -> tuple[int, ...]:
    """The id of a token that tokenizer_config.json has a name for."""
    token = getattr(tokenizer, f"{name}_token", None)
    number = None if token is None else tokenizer.convert_tokens_to_ids(token)
    if not isinstance(number, int):
        raise UnsupportedModel(
            f"tokenizer_config.json names no {name}_token, which stands beside an image; take it "
            "from where the checkpoint was published"
        )
    return (number,)


class _Tower(TowerPart):
    """Tower, shuffle and projector; positions come from outside."""

    def __init__(self, model: Any) -> None:
        super().__init__(model, model.model.vision_tower, TOWER_ATTENTION)
        config = model.config
        layer, depth = config.vision_feature_layer, config.vision_config.num_hidden_layers
        # hidden_states[i] is the output of block i - 1; the last one alone is normalised.
        self.normalised = layer == -1
        self.feature = layer if layer >= 0 else depth + 1 + layer
        self.side = config.vision_config.image_size[0] // config.vision_config.patch_size[0]

    def forward(self, pixel_values: torch.Tensor, position_table: torch.Tensor) -> Any:
        inner = self.model.model
        tower = inner.vision_tower
        with positions_from(position_table, tower.embeddings), attending(TOWER, TowerState(0)):
            hidden = tower.embeddings(pixel_values)
            for layer in tower.encoder.layer[: self.feature]:
                hidden = layer(hidden)
        if self.normalised:
            hidden = tower.layernorm(hidden)
        square = hidden[:, 1:].unflatten(1, (self.side, self.side))
        wide = inner.pixel_shuffle(square, scale_factor=self.model.config.downsample_ratio)
        return (inner.multi_modal_projector(wide.flatten(1, 2)),)


MODEL = InternVl()
