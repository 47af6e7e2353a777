"""Hugging Face's Qwen-VL models read without a cache, with their own processor's pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import torch
import transformers

Floats = npt.NDArray[np.float32]


class Qwen:
    """A checkpoint's model and image processor."""

    def __init__(self, model: Any, folder: Path) -> None:
        self.model, self.marker = model, model.config.image_token_id
        self._processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")

    def processed(self, images: Sequence[PIL.Image.Image], resolution: int) -> Any:
        """pixel_values and image_grid_thw under a budget of resolution x resolution pixels."""
        least, most = self._processor.size["shortest_edge"], resolution**2
        size = {"shortest_edge": min(least, most), "longest_edge": most}
        return self._processor(list(images), size=size, return_tensors="pt")

    def clip(
        self,
        ids: Sequence[int],
        frames: Sequence[PIL.Image.Image],
        resolution: int,
        interval: float,
    ) -> ClipPrompt:
        """`ids` with one placeholder for each pair of a video's frames, `interval` seconds apart.

        A patch of a video is made of two frames; of an odd number the last is taken twice.
        """
        even = [*frames, *frames[len(frames) - len(frames) % 2 :]]
        given = self.processed(even, resolution)
        grids = given["image_grid_thw"]
        cells = int(grids[0].prod()) // 4
        video = self.model.config.video_token_id
        whole = [
            token for one in ids for token in ([video] * cells if one == self.marker else [one])
        ]
        # As an image a frame fills a patch by itself: [pairs,2,patches,3,2,pixels].
        apart = given["pixel_values"].reshape(len(even) // 2, 2, 4 * cells, 3, 2, -1)
        paired = torch.stack([apart[:, 0, :, :, 0], apart[:, 1, :, :, 0]], 3)
        inputs = {
            "pixel_values_videos": paired.reshape(-1, given["pixel_values"].shape[-1]),
            "video_grid_thw": torch.tensor([[len(even) // 2, *grids[0, 1:].tolist()]]),
        }
        if hasattr(self.model.config.vision_config, "tokens_per_second"):
            inputs["second_per_grid_ts"] = torch.tensor([2 * interval])
        return ClipPrompt(self.model, whole, inputs)

    def prompt(
        self, ids: Sequence[int], images: Sequence[PIL.Image.Image], resolution: int
    ) -> WholePrompt:
        """`ids` with one placeholder for each of the images."""
        given = self.processed(images, resolution)
        counts = iter((given["image_grid_thw"].prod(-1) // 4).tolist())
        whole = [
            token for one in ids for token in [one] * (next(counts) if one == self.marker else 1)
        ]
        return WholePrompt(self.model, whole, given)


@dataclass
class WholePrompt:
    """A prompt with a placeholder for every visual token."""

    model: Any
    ids: list[int]
    images: Any

    def _inputs(self, answer: Sequence[int]) -> dict[str, Any]:
        ids = torch.tensor([[*self.ids, *answer]])
        kinds = (ids == self.model.config.image_token_id).int()
        return {"input_ids": ids, "mm_token_type_ids": kinds, **self.images}

    @property
    def visual(self) -> list[int]:
        """Places of visual tokens."""
        marker = self.model.config.image_token_id
        return [place for place, token in enumerate(self.ids) if token == marker]

    def continued(self, token_ids: Sequence[int]) -> Floats:
        """Logits [tokens,vocab] that lead to each of `token_ids`."""
        result = self.model(**self._inputs(token_ids[:-1]), use_cache=False)
        logits: Floats = result.logits[0, -len(token_ids) :].float().numpy()
        return logits

    def last_attention(self, layer: int) -> Floats:
        """Attention of the prompt's last token in `layer`, mean over heads, [S]."""
        result = self.model(**self._inputs(()), use_cache=False, output_attentions=True)
        attention: Floats = result.attentions[layer][0, :, -1].mean(0).numpy()
        return attention

    def without(self, kept: Sequence[int], token_ids: Sequence[int]) -> Floats:
        """The same of the prompt's places `kept` alone, each at the positions that it had."""
        inputs = self._inputs(token_ids[:-1])
        model = self.model.model
        grid = inputs["image_grid_thw"]
        positions, _ = model.get_rope_index(inputs["input_ids"], inputs["mm_token_type_ids"], grid)
        seen = model.get_image_features(inputs["pixel_values"], grid)
        places = [*kept, *range(len(self.ids), inputs["input_ids"].shape[1])]
        embeds = model.get_input_embeddings()(inputs["input_ids"]).clone()
        visual = inputs["mm_token_type_ids"][0].bool()
        embeds[0, visual] = torch.cat(list(seen.pooler_output))
        named: dict[str, Any] = {}
        if getattr(seen, "deepstack_features", None):
            left = torch.tensor([place in set(kept) for place in self.visual])
            levels = [torch.cat(list(level))[left] for level in seen.deepstack_features]
            named = {"visual_pos_masks": visual[places][None], "deepstack_visual_embeds": levels}
        hidden = model.language_model(
            inputs_embeds=embeds[:, places],
            position_ids=positions[:, :, places],
            attention_mask=torch.ones(1, len(places), dtype=torch.int64),
            use_cache=False,
            **named,
        ).last_hidden_state
        logits: Floats = self.model.lm_head(hidden)[0, -len(token_ids) :].float().numpy()
        return logits


@dataclass
class ClipPrompt:
    """A prompt around a video, which is read as `generate` does."""

    model: Any
    ids: list[int]
    video: Any

    def continued(self, token_ids: Sequence[int]) -> Floats:
        """Logits [tokens,vocab] that lead to each of `token_ids`."""
        ids = torch.tensor([self.ids])
        kinds = 2 * (ids == self.model.config.video_token_id).int()
        told = {name: value for name, value in self.video.items() if name != "pixel_values_videos"}
        positions, delta = self.model.model.get_rope_index(ids, kinds, **told)
        rest = torch.arange(len(self.ids), len(self.ids) + len(token_ids) - 1) + delta
        result = self.model(
            input_ids=torch.tensor([[*self.ids, *token_ids[:-1]]]),
            position_ids=torch.cat([positions, rest.expand(3, 1, -1)], 2),
            attention_mask=torch.ones(1, len(self.ids) + len(token_ids) - 1, dtype=torch.int64),
            use_cache=False,
            **self.video,
        )
        logits: Floats = result.logits[0, -len(token_ids) :].float().numpy()
        return logits
