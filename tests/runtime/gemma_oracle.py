"""Hugging Face's Gemma 3 with images, read without a cache, on its own processor's inputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import torch
import transformers

Floats = npt.NDArray[np.float32]
MASKED = -1e30


class Gemma:
    """A checkpoint's model and processor."""

    def __init__(self, model: Any, folder: Path) -> None:
        self.model, self.marker = model, model.config.image_token_id
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self.pixels = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
        self.tokens = model.config.mm_tokens_per_image

    def written(self, messages: Sequence[Any]) -> list[int]:
        """Ids of a conversation, every visual token one, as the processor writes them."""
        text = self.tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=True
        )
        kind = transformers.models.gemma3.processing_gemma3.Gemma3Processor
        processor = object.__new__(kind)  # made without its parts, which want what decodes videos
        begin, end = self.tokenizer.boi_token, self.tokenizer.eoi_token
        whole = f"\n\n{begin}{self.tokenizer.image_token * self.tokens}{end}\n\n"
        vars(processor)["full_image_sequence"] = whole
        shown = processor.replace_image_token({"num_crops": [0]}, 0)
        ids: list[int] = self.tokenizer(
            text.replace(begin, shown), add_special_tokens=False
        ).input_ids
        return ids

    def seen(self, images: Sequence[PIL.Image.Image], **options: Any) -> torch.Tensor:
        """Visual tokens [I,V,E]; options: for pixels of another size."""
        given = self.pixels(list(images), return_tensors="pt", **options)["pixel_values"]
        projector, own = self.model.model.multi_modal_projector, given.shape[-1]
        native, projector.patches_per_image = projector.patches_per_image, own // 7
        try:
            named = {} if own == 56 else {"interpolate_pos_encoding": True}
            found: torch.Tensor = self.model.model.get_image_features(given, **named).pooler_output
        finally:
            projector.patches_per_image = native
        return found

    def continued(
        self, ids: Sequence[int], images: Sequence[PIL.Image.Image], answer: Sequence[int]
    ) -> Floats:
        """Logits [tokens,vocab] that lead to each of `answer`, by Hugging Face's own masks."""
        whole = torch.tensor([[*ids, *answer[:-1]]])
        given = self.pixels(list(images), return_tensors="pt")["pixel_values"]
        result = self.model(
            input_ids=whole,
            pixel_values=given,
            token_type_ids=(whole == self.marker).long(),
            attention_mask=torch.ones_like(whole),
            use_cache=False,
        )
        logits: Floats = result.logits[0, -len(answer) :].float().numpy()
        return logits

    def embeds(self, ids: Sequence[int], features: torch.Tensor) -> torch.Tensor:
        """[S,E] of ids in which every visual token is one; features [I,V,E]."""
        whole = torch.tensor(list(ids))
        rows: torch.Tensor = self.model.get_input_embeddings()(whole).clone()
        rows[whole == self.marker] = features.flatten(0, 1).to(rows.dtype)
        return rows

    def without(
        self,
        ids: Sequence[int],
        features: torch.Tensor,
        kept: Sequence[int],
        answer: Sequence[int],
    ) -> Floats:
        """The same of the places `kept` alone, each at the position that it had."""
        places = [*kept, *range(len(ids), len(ids) + len(answer) - 1)]
        embeds = self.embeds([*ids, *answer[:-1]], features)[places]
        image, number = [], -1
        for place, token in enumerate(ids):
            begins = token == self.marker and (place == 0 or ids[place - 1] != self.marker)
            number += begins
            image.append(number if token == self.marker else -1)
        own = np.array([*image, *[-1] * (len(answer) - 1)])[places]
        result = self.model(
            inputs_embeds=embeds[None],
            position_ids=torch.tensor([places]),
            attention_mask=self._masks(np.array(places), own),
            use_cache=False,
        )
        logits: Floats = result.logits[0, -len(answer) :].float().numpy()
        return logits

    def _masks(self, places: Any, image: Any) -> dict[str, torch.Tensor]:
        """By kind of layer what is added to logits [1,1,S,S], by ordinals and not by places."""
        query, key = places[:, None], places[None]
        same = (image[:, None] == image[None]) & (image[:, None] >= 0)
        seen = (key <= query) | same
        window = self.model.config.text_config.sliding_window
        near = seen & (key > query - window)
        return {
            name: torch.from_numpy(np.where(allowed, 0, MASKED).astype(np.float32))[None, None]
            for name, allowed in (("full_attention", seen), ("sliding_attention", near))
        }
