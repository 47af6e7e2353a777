"""LLaVA-1.5 and its like: a CLIP or SigLIP tower, a projector, a causal language model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tightrope.arrays import Array, Floats
from tightrope.errors import InputError, UnsupportedModel
from tightrope.export.accounting import WithoutEffect
from tightrope.export.families.pixels import square_pixels
from tightrope.export.families.tower import Part, TowerPart, own_first, positions_from
from tightrope.export.tracing.attention import TOWER, TOWER_ATTENTION, TowerState, attending
from tightrope.inputs.prepare.clip import PIXEL_VALUES
from tightrope.inputs.vision import VisionInfo
from tightrope.interface.tensors import CLS_ATTENTION, TOWER_KEYS, TOWER_STATES

KINDS = {"clip_vision_model": "clip", "siglip_vision_model": "siglip"}
"""By the tower's model type the kind of its numpy half."""
_STRATEGIES = {
    "clip": ("default", "which leaves CLS out"),
    "siglip": ("full", "a SigLIP tower having no CLS to leave out"),
}


def leading(config: Any) -> int:
    """Tokens of the tower before those of the patches."""
    return int(KINDS[config.vision_config.model_type] == "clip")


class Llava:
    """The tower of `LlavaForConditionalGeneration`: a `clip_vision_model`, or SigLIP's."""

    def signals(self, config: Any) -> tuple[str, ...]:
        # All of them are about CLS, or begin with it.
        return (CLS_ATTENTION, TOWER_KEYS, TOWER_STATES) if leading(config) else ()

    def check(self, config: Any) -> None:
        name, tower = config.model_type, config.vision_config.model_type
        if tower not in KINDS:
            raise UnsupportedModel(
                f"the {name} model has a tower of type {tower!r}; accepted: {', '.join(KINDS)}"
            )
        if not isinstance(config.vision_feature_layer, int):
            raise UnsupportedModel(
                f"vision_feature_layer is {config.vision_feature_layer!r}; accepted: one layer"
            )
        depth, layer = config.vision_config.num_hidden_layers, config.vision_feature_layer
        if not (1 <= layer <= depth or -depth <= layer <= -1):
            raise UnsupportedModel(
                f"vision_feature_layer is {layer}, the tower has {depth} layers; accepted: "
                f"1..{depth}, or counted from the end"
            )
        accepted, why = _STRATEGIES[KINDS[tower]]
        if config.vision_feature_select_strategy != accepted:
            raise UnsupportedModel(
                f"vision_feature_select_strategy is {config.vision_feature_select_strategy!r}; "
                f"accepted: {accepted!r}, {why}"
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
        vision = config.vision_config
        own = vision.image_size
        for resolution in resolutions or ():
            if resolution % vision.patch_size and (leading(config) or resolution != own):
                raise InputError(
                    f"resolution is {resolution}; accepted: multiples of the tower's patch, "
                    f"{vision.patch_size} pixels"
                )
        if leading(config) and not resolutions and own % vision.patch_size:
            raise UnsupportedModel(
                f"the tower's own side is {own} pixels, no multiple of its patch of "
                f"{vision.patch_size}; name a --resolution that is one"
            )
        return VisionInfo(
            kind=KINDS[vision.model_type],
            image_token_id=config.image_token_id,
            image_token=token,
            resolutions=own_first(resolutions, own),
            signals=tuple(signals),
            sizes={
                "patch_size": vision.patch_size,
                "hidden_size": vision.hidden_size,
                "head_dim": vision.hidden_size // vision.num_attention_heads,
            },
        )

    def width(self, config: Any) -> int:
        return int(config.vision_config.hidden_size)

    def module(self, model: Any, signals: Sequence[str]) -> torch.nn.Module:
        return ProjectedTower(model, signals)

    def projector(self, model: Any) -> torch.nn.Module:
        return Projector(model)

    def tables(self, model: Any, info: VisionInfo) -> dict[str, Floats]:
        """The position embeddings [1,P,Dv], interpolated for each resolution."""
        embeddings = model.model.vision_tower.embeddings
        weight = embeddings.position_embedding.weight
        found = {}
        for side in info.resolutions:
            patches = (side // embeddings.patch_size) ** 2 + leading(model.config)
            blank = torch.empty(1, patches, embeddings.embed_dim, dtype=weight.dtype)
            table = embeddings.interpolate_pos_encoding(blank, side, side)
            found[str(side)] = table.detach().float().numpy()
        return found

    def separators(self, model: Any) -> torch.Tensor:
        return torch.empty(0, model.config.text_config.hidden_size)

    def reference_embeds(self, model: Any, inputs: Mapping[str, Array]) -> torch.Tensor:
        pixels = torch.from_numpy(inputs[PIXEL_VALUES])
        native = model.config.vision_config.image_size
        options = {} if pixels.shape[-1] == native else {"interpolate_pos_encoding": True}
        output = model.model.get_image_features(pixels, **options)
        return torch.stack(list(output.pooler_output))

    def preprocessor(
        self, config: Any, folder: Path, stored: Mapping[str, Any]
    ) -> tuple[dict[str, Any], list[WithoutEffect]]:
        return square_pixels(folder, stored, config.vision_config.image_size)


class ProjectedTower(TowerPart):
    """Tower and projector; positions come from outside, attention of one layer is read out."""

    def __init__(self, model: Any, signals: Sequence[str]) -> None:
        super().__init__(model, model.model.vision_tower, TOWER_ATTENTION)
        self.signals, config = signals, model.config
        depth = config.vision_config.num_hidden_layers
        layer = config.vision_feature_layer
        # hidden_states[i] is the output of block i - 1.
        self.feature = layer if layer >= 0 else depth + 1 + layer
        self.leading = leading(config)

    def forward(self, pixel_values: torch.Tensor, position_table: torch.Tensor) -> Any:
        tower = self.model.model.vision_tower
        state = TowerState(self.feature - 1)
        with positions_from(position_table, tower.embeddings), attending(TOWER, state):
            hidden = tower.embeddings(pixel_values, interpolate_pos_encoding=True)
            if self.leading:
                hidden = tower.pre_layrnorm(hidden)
            # Blocks behind the feature layer feed nothing.
            for block in tower.encoder.layers[: self.feature]:
                hidden = block(hidden, attention_mask=None)
        outputs: dict[str, Callable[[], torch.Tensor]] = {
            CLS_ATTENTION: lambda: state.cls_attention()[:, 1:],
            TOWER_KEYS: lambda: state.keys()[:, 1:],
            TOWER_STATES: lambda: hidden,
        }
        visual = self.model.model.multi_modal_projector(hidden[:, self.leading :])
        return (visual, *(outputs[signal]() for signal in self.signals))


class Projector(Part):
    """Tower states to embeddings, where Hugging Face calls it `multi_modal_projector`."""

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        embeds: torch.Tensor = self.model.model.multi_modal_projector(states)
        return embeds


MODEL = Llava()
