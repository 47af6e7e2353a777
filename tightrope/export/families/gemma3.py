"""Gemma 3: a SigLIP tower whose patches are averaged into fewer tokens, which see each other.

The tokens of an image attend to all of that image, in layers with a window too. What stands around
them is written into the text before it is encoded, because line breaks join with those beside them.
Its processor's crops (pan and scan) are not made.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from math import isqrt
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

from tightrope.arrays import Array
from tightrope.errors import InputError, UnsupportedModel
from tightrope.export.accounting import Harmless, WithoutEffect
from tightrope.export.families.llava import Llava
from tightrope.export.families.pixels import WAY_OUT, square_pixels
from tightrope.export.families.tower import Part, TowerPart, own_first, positions_from
from tightrope.export.tracing.attention import TOWER, TOWER_ATTENTION, TowerState, attending
from tightrope.inputs.prepare.clip import PIXEL_VALUES
from tightrope.inputs.vision import VisionInfo

_TOWER = "siglip_vision_model"
_STEPS = ("do_pan_and_scan", "do_center_crop", "do_pad")
"""Of the image processor; the first is not followed here, the others not there."""
_CROPS = (Harmless(r"do_pan_and_scan|pan_and_scan_\w+", "pan and scan is off"),)


class Gemma3(Llava):
    """The tower of `Gemma3ForConditionalGeneration`."""

    def check(self, config: Any) -> None:
        vision, tokens = config.vision_config, config.mm_tokens_per_image
        if vision.model_type != _TOWER:
            raise UnsupportedModel(
                f"the {config.model_type} model has a tower of type {vision.model_type!r}; "
                f"accepted: {_TOWER}"
            )
        side, across = vision.image_size // vision.patch_size, isqrt(max(tokens, 0))
        fits = across and across**2 == tokens and side % across == 0
        if not fits or vision.image_size % vision.patch_size:
            raise UnsupportedModel(
                f"mm_tokens_per_image is {tokens}, a tower of {vision.image_size} pixels has "
                f"{side} x {side} patches of {vision.patch_size}; accepted: the tokens of a "
                "square that divides them"
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
        vision, pool = config.vision_config, _pool(config)
        own, cell = vision.image_size, vision.patch_size * pool
        for resolution in resolutions or ():
            if resolution % cell:
                raise InputError(
                    f"resolution is {resolution}; accepted: multiples of {cell} pixels, the side "
                    "of what becomes a token"
                )
        begin, end = (
            _written(tokenizer, config, name) for name in ("boi_token_index", "eoi_token_index")
        )
        return VisionInfo(
            kind="gemma3",
            image_token_id=config.image_token_id,
            image_token=begin,
            image_text=f"\n\n{begin}{token}{end}\n\n",
            resolutions=own_first(resolutions, own),
            signals=tuple(signals),
            sizes={
                "patch_size": vision.patch_size,
                "hidden_size": vision.hidden_size,
                "head_dim": vision.hidden_size // vision.num_attention_heads,
                "pool": pool,
            },
        )

    def module(self, model: Any, signals: Sequence[str]) -> torch.nn.Module:
        return _Tower(model)

    def projector(self, model: Any) -> torch.nn.Module:
        return _Projector(model)

    def reference_embeds(self, model: Any, inputs: Mapping[str, Array]) -> torch.Tensor:
        with _sized(model, inputs[PIXEL_VALUES].shape[-1]):
            return super().reference_embeds(model, inputs)

    def preprocessor(
        self, config: Any, folder: Path, stored: Mapping[str, Any]
    ) -> tuple[dict[str, Any], list[WithoutEffect]]:
        for step in _STEPS:
            if stored.get(step):
                raise UnsupportedModel(
                    f"the image processor has {step} {stored[step]!r}; accepted: off, so that an "
                    f"image is one square of {config.vision_config.image_size} pixels; {WAY_OUT}, "
                    "or set it to false"
                )
        side = config.vision_config.image_size
        return square_pixels(folder, stored, side, (Gemma3ImageProcessorPil,), _CROPS)


def reference_inputs(model: Any, inputs: Mapping[str, Array], ids: torch.Tensor) -> dict[str, Any]:
    """What Hugging Face's model is called with for a prompt around one image.

    inputs: of graph vision. ids [1,S], the placeholder in the place of every visual token.
    """
    seen = SimpleNamespace(pooler_output=MODEL.reference_embeds(model, inputs))
    kinds = (ids == model.config.image_token_id).long()
    return {"input_ids": ids, "token_type_ids": kinds, "mm_encoder_outputs": {"image": seen}}


def _pool(config: Any) -> int:
    """Patches on a side of what is averaged into one token."""
    vision = config.vision_config
    return int(vision.image_size // vision.patch_size // isqrt(config.mm_tokens_per_image))


def _written(tokenizer: Any, config: Any, name: str) -> str:
    """The token that config.json numbers so."""
    token = tokenizer.convert_ids_to_tokens(getattr(config, name))
    if not isinstance(token, str):
        raise UnsupportedModel(
            f"{name} is {getattr(config, name)}, which is none of the tokenizer's "
            f"{len(tokenizer)} tokens: config.json and tokenizer.json do not belong together"
        )
    return token


@contextlib.contextmanager
def _sized(model: Any, pixels: Any) -> Iterator[None]:
    """The projector takes pictures of `pixels` on a side, however many it was made for."""
    projector, patch = model.model.multi_modal_projector, model.config.vision_config.patch_size
    own = projector.patches_per_image
    projector.patches_per_image = pixels // patch
    try:
        yield
    finally:
        projector.patches_per_image = own


class _Tower(TowerPart):
    """Tower and projector; positions come from outside."""

    def __init__(self, model: Any) -> None:
        super().__init__(model, model.model.vision_tower, TOWER_ATTENTION)

    def forward(self, pixel_values: torch.Tensor, position_table: torch.Tensor) -> Any:
        tower = self.model.model.vision_tower
        positions = positions_from(position_table, tower.embeddings)
        sized = _sized(self.model, pixel_values.shape[2])
        with attending(TOWER, TowerState(0)), sized, positions:
            hidden = tower.embeddings(pixel_values, interpolate_pos_encoding=True)
            for block in tower.encoder.layers:
                hidden = block(hidden, attention_mask=None)
            hidden = tower.post_layernorm(hidden)
            return (self.model.model.multi_modal_projector(hidden),)


class _Projector(Part):
    """Averaged states to embeddings."""

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        projector = self.model.model.multi_modal_projector
        embeds: torch.Tensor = (
            projector.mm_soft_emb_norm(states) @ projector.mm_input_projection_weight
        )
        return embeds


MODEL = Gemma3()
