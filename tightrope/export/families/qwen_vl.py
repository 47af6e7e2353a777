"""Qwen2.5-VL and Qwen3-VL: a tower over images of any size, with windows or with DeepStack.

Patches come packed and in the order in which the tower reads them, with all that follows from the
image's grid: `inputs/prepare/qwen_vl.py` computes it. A checkpoint that says model_type qwen2_5_vl,
such as MiMo-VL, is one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from tightrope.arrays import Array, Floats
from tightrope.errors import BundleError, InputError, UnsupportedModel
from tightrope.export.accounting import Account, WithoutEffect
from tightrope.export.families.pixels import CLASSES, HARMLESS, WAY_OUT, plain
from tightrope.export.families.tower import Part, TowerPart
from tightrope.export.foreign import reading, silence
from tightrope.export.tracing.attention import PACKED_ATTENTION
from tightrope.inputs.prepare.grids import windows
from tightrope.inputs.prepare.patches import CONFIG_KEYS, Patches
from tightrope.inputs.prepare.qwen_vl import PATCH_PLACES, PIXEL_VALUES
from tightrope.inputs.vision import VisionInfo

_USUAL_SIDE = 768
"""Of the budget that a bundle is made for if none is named: checkpoints allow 20 times its area."""


class QwenVl:
    """The tower of `Qwen2_5_VLForConditionalGeneration` and `Qwen3VLForConditionalGeneration`."""

    def signals(self, config: Any) -> tuple[str, ...]:
        return ()

    def check(self, config: Any) -> None:
        vision, text = config.vision_config, config.get_text_config()
        for name in ("patch_size", "temporal_patch_size", "spatial_merge_size"):
            if type(getattr(vision, name)) is not int:
                raise UnsupportedModel(
                    f"vision_config has {name} {getattr(vision, name)!r}; accepted: one number"
                )
        for name, found, wanted in (
            ("in_channels", vision.in_channels, 3),
            ("out_hidden_size", vision.out_hidden_size, text.hidden_size),
        ):
            if found != wanted:
                raise UnsupportedModel(f"vision_config has {name} {found}; accepted: {wanted}")
        sections = (text.rope_parameters or {}).get("mrope_section")
        width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        if not isinstance(sections, list) or len(sections) != 3 or sum(sections) * 2 != width:
            raise UnsupportedModel(
                f"the language model's mrope_section is {sections}; accepted: three numbers that "
                f"make up half a head, {width // 2}"
            )
        levels = len(_levels(vision))
        if levels > text.num_hidden_layers:
            raise UnsupportedModel(
                f"the tower has {levels} levels of DeepStack for {text.num_hidden_layers} layers"
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
        vision, size = config.vision_config, preprocessor["size"]
        cell = vision.patch_size * vision.spatial_merge_size
        own = isqrt(size["longest_edge"]) // cell * cell
        for side in resolutions or ():
            if side % cell or not 0 < side <= own:
                raise InputError(
                    f"resolution is {side}; accepted: multiples of {cell} up to {own}, the side of "
                    "a square whose area images may take"
                )
        usual = min(own, _USUAL_SIDE // cell * cell)
        if not resolutions and not usual:
            raise UnsupportedModel(f"the image processor allows no cell of {cell} x {cell} pixels")
        return VisionInfo(
            kind="qwen_vl",
            image_token_id=config.image_token_id,
            image_token=token,
            resolutions=tuple(dict.fromkeys(resolutions or (usual,))),
            signals=tuple(signals),
            sizes={
                "patch_size": vision.patch_size,
                "temporal_patch_size": vision.temporal_patch_size,
                "merge_size": vision.spatial_merge_size,
                "least_pixels": size["shortest_edge"],
                "window": _window(vision),
                "table": int(getattr(vision, "num_position_embeddings", 0) ** 0.5),
                "deepstack": len(_levels(vision)),
            },
            together=vision.temporal_patch_size,
            timestamps=not hasattr(vision, "tokens_per_second"),
            second=getattr(vision, "tokens_per_second", 0),
        )

    def width(self, config: Any) -> int:
        """Of a cell: the projector reads all its patches at once."""
        vision = config.vision_config
        return int(vision.hidden_size * vision.spatial_merge_size**2)

    def module(self, model: Any, signals: Sequence[str]) -> torch.nn.Module:
        return _Tower(model)

    def projector(self, model: Any) -> torch.nn.Module:
        return _Projector(model)

    def tables(self, model: Any, info: VisionInfo) -> dict[str, Floats]:
        return {}

    def separators(self, model: Any) -> torch.Tensor:
        return torch.empty(0, model.config.get_text_config().hidden_size)

    def reference_embeds(self, model: Any, inputs: Mapping[str, Array]) -> torch.Tensor:
        seen = model.model.get_image_features(**_as_published(model, inputs))
        (embeds,) = seen.pooler_output
        order, _ = _order(model, inputs)
        ordered: torch.Tensor = embeds[torch.from_numpy(order)][None]
        return ordered

    def preprocessor(
        self, config: Any, folder: Path, stored: Mapping[str, Any]
    ) -> tuple[dict[str, Any], list[WithoutEffect]]:
        if not stored:
            raise UnsupportedModel(f"{folder} has no preprocessor_config.json; {WAY_OUT}")
        with silence(), reading(f"{folder} has no image processor that can be read", WAY_OUT):
            processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
        if type(processor) is not Qwen2VLImageProcessorPil:
            raise UnsupportedModel(
                f"the image processor is a {type(processor).__name__}, whose steps are not known "
                f"here; accepted: Qwen2VLImageProcessor; {WAY_OUT}"
            )
        account = Account("keys of the image processor", stored, HARMLESS, WAY_OUT)
        account.take_all((*CONFIG_KEYS, *CLASSES, "min_pixels", "max_pixels"))
        without_effect = account.close()
        values = {key: plain(getattr(processor, key, None)) for key in CONFIG_KEYS}
        values |= {key: bool(value) for key, value in values.items() if key.startswith("do_")}
        values = {key: value for key, value in values.items() if value is not None}
        try:
            patches = Patches(values)
        except BundleError as error:
            said = str(error).removeprefix("preprocessor.json ").partition("; export")[0]
            raise UnsupportedModel(f"the image processor {said}; {WAY_OUT}") from error
        vision = config.vision_config
        wanted = vision.patch_size, vision.temporal_patch_size, vision.spatial_merge_size
        if (patches.patch, patches.repeats, patches.merge) != wanted:
            raise UnsupportedModel(
                f"the image processor has patches of {patches.patch} x {patches.patch} x "
                f"{patches.repeats} and merges {patches.merge}, the tower takes {wanted[0]} x "
                f"{wanted[0]} x {wanted[1]} and {wanted[2]}; {WAY_OUT}"
            )
        return values, without_effect


def reference_inputs(
    model: Any, inputs: Mapping[str, Array], ids: torch.Tensor
) -> dict[str, torch.Tensor]:
    """What Hugging Face's model is called with for a prompt around one image.

    inputs: of graph vision. ids [1,S], the placeholder in the place of every visual token.
    """
    kinds = (ids == model.config.image_token_id).int()
    return {"input_ids": ids, "mm_token_type_ids": kinds, **_as_published(model, inputs)}


def _as_published(model: Any, inputs: Mapping[str, Array]) -> dict[str, torch.Tensor]:
    """The tower's inputs as Hugging Face's processor would have made them."""
    order, grid = _order(model, inputs)
    cells = inputs[PIXEL_VALUES][np.argsort(order)]
    pixels = torch.from_numpy(cells.reshape(-1, cells.shape[-1]))
    return {"pixel_values": pixels, "image_grid_thw": torch.tensor([[1, *grid]])}


def _order(model: Any, inputs: Mapping[str, Array]) -> tuple[Array, tuple[int, int]]:
    """How the cells stand, and the rows and columns of patches."""
    vision = model.config.vision_config
    rows, columns = (int(length) + 1 for length in inputs[PATCH_PLACES].max((0, 1)))
    merge, side = vision.spatial_merge_size, _window(vision)
    order = np.arange(rows * columns // merge**2)
    if side:
        order, _ = windows(columns // merge, rows // merge, side)
    return order, (rows, columns)


def _window(vision: Any) -> int:
    """Cells on a side of a window; 0 where every block sees everything."""
    whole = getattr(vision, "fullatt_block_indexes", range(vision.depth))
    if set(range(vision.depth)) <= set(whole):
        return 0
    side: int = vision.window_size // vision.spatial_merge_size // vision.patch_size
    if side < 1:
        raise UnsupportedModel(
            f"vision_config has window_size {vision.window_size}, less than a cell of "
            f"{vision.spatial_merge_size * vision.patch_size} pixels"
        )
    return side


def _levels(vision: Any) -> Sequence[int]:
    """Blocks whose states go to the language model's first layers."""
    found: Sequence[int] = getattr(vision, "deepstack_visual_indexes", None) or ()
    return found


class _Tower(TowerPart):
    """Blocks and merger; what depends on the grid comes from outside."""

    def __init__(self, model: Any) -> None:
        super().__init__(model, model.model.visual, PACKED_ATTENTION)
        vision = model.config.vision_config
        self.levels = list(_levels(vision))
        self.whole = set(getattr(vision, "fullatt_block_indexes", range(vision.depth)))
        self.longest = (_window(vision) * vision.spatial_merge_size) ** 2

    def forward(
        self,
        pixel_values: torch.Tensor,
        patch_places: torch.Tensor,
        cu_seqlens: torch.Tensor,
        cu_window_seqlens: torch.Tensor | None = None,
        table_places: torch.Tensor | None = None,
        table_shares: torch.Tensor | None = None,
    ) -> Any:
        visual = self.model.model.visual
        project = visual.patch_embed.proj
        # Kernel and stride of the convolution are a patch: it is a product.
        hidden = torch.nn.functional.linear(
            pixel_values.flatten(0, 1), project.weight.flatten(1), project.bias
        )
        if table_places is not None and table_shares is not None:
            learned = visual.pos_embed(table_places.flatten(0, 1))  # [T,4,Dv]
            learned = (learned * table_shares.flatten(0, 1)[:, :, None]).sum(1)
            hidden = hidden + learned.to(hidden.dtype)
        turned = visual.rotary_pos_emb(hidden, patch_places.flatten(0, 1))
        levels = []
        for number, block in enumerate(visual.blocks):
            within = number not in self.whole
            hidden = block(
                hidden,
                cu_seqlens=cu_window_seqlens if within else cu_seqlens,
                max_seqlen=self.longest if within else 0,
                position_embeddings=turned,
            )
            if number in self.levels:
                merger = visual.deepstack_merger_list[self.levels.index(number)]
                levels.append(merger(hidden))
        embeds = visual.merger(hidden)[None]
        return (embeds, torch.stack(levels, 1)[None]) if levels else embeds


class _Projector(Part):
    def forward(self, states: torch.Tensor) -> torch.Tensor:
        merger = self.model.model.visual.merger
        images, cells, _ = states.shape
        patches = states.reshape(
            -1, merger.hidden_size // self.model.model.visual.spatial_merge_unit
        )
        embeds: torch.Tensor = merger(patches).reshape(images, cells, -1)
        return embeds


MODEL = QwenVl()
