"""Hugging Face's model read without a cache, and a backend that notes what it computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

Floats = npt.NDArray[np.float32]
Ordinals = Sequence[int] | npt.NDArray[Any]


class Recorder:
    """A backend that keeps the inputs and the logits of the last request."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.calls: list[Any] = []
        self._logits: list[Floats] = []
        self.slots: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def forget(self) -> None:
        """Begin a new request."""
        self.calls, self._logits = [], []

    @property
    def logits(self) -> Floats:
        """[tokens,vocab]: after the prompt, then after each generated token that was read."""
        whole_prompt = [row for row, call in self._rows() if call is None]
        return np.stack([whole_prompt[-1], *(row for row, call in self._rows() if call)])

    def _rows(self) -> list[tuple[Floats, Any]]:
        decodes = [call.embeds.shape[1] == 1 and i > 0 for i, call in enumerate(self.calls)]
        pairs = zip(self._logits, decodes, strict=True)
        return [(logits[0], decode or None) for logits, decode in pairs]

    @property
    def prompt(self) -> tuple[Floats, npt.NDArray[np.int32]]:
        """Embeddings [S,E] and ordinals [S] that prefill was given, its chunks joined."""
        parts = [
            call for call, (_, decode) in zip(self.calls, self._rows(), strict=True) if not decode
        ]
        embeds = np.concatenate([part.embeds[0] for part in parts])
        return embeds, np.concatenate([part.query_position[0] for part in parts])

    def prefill(self, slots: Any, call: Any, *rest: Any) -> Any:
        logits, update = self._backend.prefill(slots, call, *rest)
        self._note(slots, call, logits)
        return logits, update

    def decode(self, slots: Any, call: Any) -> Any:
        logits, update = self._backend.decode(slots, call)
        self._note(slots, call, logits)
        return logits, update

    def _note(self, slots: Any, call: Any, logits: Floats) -> None:
        self.slots = slots
        self.calls.append(call)
        self._logits.append(logits.copy())


def text_embeds(model: Any, token_ids: Sequence[int]) -> torch.Tensor:
    """[S,E]"""
    embeds: torch.Tensor = model.get_input_embeddings()(torch.tensor(list(token_ids)))
    return embeds


def image_embeds(model: Any, pixel_values: Floats) -> torch.Tensor:
    """[I,V,E] of pixel_values [I,3,R,R], the tower's positions interpolated if need be."""
    native = model.config.vision_config.image_size
    options = {} if pixel_values.shape[-1] == native else {"interpolate_pos_encoding": True}
    seen = model.model.get_image_features(torch.from_numpy(pixel_values), **options)
    return torch.stack(list(seen.pooler_output))


def with_images(model: Any, token_ids: Sequence[int], features: torch.Tensor) -> torch.Tensor:
    """[S,E]: each placeholder of the prompt replaced by its image's features [I,V,E]."""
    waiting = iter(features)
    image = model.config.image_token_id
    return torch.cat(
        [next(waiting) if token == image else text_embeds(model, [token]) for token in token_ids]
    )


def continued(
    model: Any,
    embeds: torch.Tensor,
    token_ids: Sequence[int],
    ordinals: Ordinals | None = None,
) -> Floats:
    """Logits [tokens,vocab] that lead to each of `token_ids` after the prompt `embeds` [S,E].

    Rotary positions are `ordinals` and go on from the last of them.
    """
    whole = torch.cat([embeds, text_embeds(model, token_ids[:-1])])[None]
    given = np.arange(len(embeds)) if ordinals is None else np.asarray(ordinals)
    rest = given[-1] + 1 + np.arange(len(token_ids) - 1)
    positions = torch.from_numpy(np.concatenate([given, rest]).astype(np.int64))[None]
    # Without a mask Hugging Face takes a gap in the positions for the start of another sequence.
    mask = torch.ones(whole.shape[:2], dtype=torch.int64)
    result = model(
        inputs_embeds=whole, attention_mask=mask, position_ids=positions, use_cache=False
    )
    logits: Floats = result.logits[0, -len(token_ids) :].float().numpy()
    return logits


def last_attention(model: Any, embeds: torch.Tensor, ordinals: Ordinals, layer: int) -> Floats:
    """Attention of the prompt's last token in `layer`, mean over heads, [S]."""
    positions = torch.from_numpy(np.asarray(ordinals).astype(np.int64))[None]
    result = model(
        inputs_embeds=embeds[None],
        attention_mask=torch.ones(1, len(embeds), dtype=torch.int64),
        position_ids=positions,
        use_cache=False,
        output_attentions=True,
    )
    attention: Floats = result.attentions[layer][0, :, -1].mean(0).numpy()
    return attention


def hidden_from(model: Any, layer: int, places: Sequence[int]) -> Any:
    """Hooks under which `layer` and all after it do not see the tokens at `places`.

    Returns a function that removes them.
    """

    def hide(_: Any, arguments: Any, named: dict[str, Any]) -> Any:
        length = arguments[0].shape[1]
        mask = named.get("attention_mask")
        if mask is None:
            mask = torch.triu(torch.full((1, 1, length, length), -1e30), diagonal=1)
        mask = mask.clone().float()
        mask[..., list(places)] = -1e30
        # What is hidden sees itself at least, so that its own row stays a number.
        mask[..., list(places), list(places)] = 0
        return arguments, {**named, "attention_mask": mask}

    layers = model.get_decoder().layers[layer:]
    handles = [entry.register_forward_pre_hook(hide, with_kwargs=True) for entry in layers]

    def remove() -> None:
        for handle in handles:
            handle.remove()

    return remove
