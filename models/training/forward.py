"""The model's forward pass, written out over the weights of the Hugging Face modules.

transformers has no mask for packed questions and no way to run a few of the layers; everything else
is as there, and a test holds both against each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlavaForConditionalGeneration

from models.training.architecture import HEAD, HEADS, KV_HEADS


def tower(model: LlavaForConditionalGeneration, pixels: Tensor) -> list[Tensor]:
    """Hidden states [B,1+N,D] after each layer, for pixels [B,3,px,px] in -1 to 1."""
    clip = model.model.vision_tower
    embeddings = clip.embeddings
    patches = embeddings.patch_embedding(pixels).flatten(2).transpose(1, 2)
    batch, count, width = patches.shape
    table = embeddings.position_embedding.weight
    side = int(count**0.5)
    cls, grid = table[:1], table[1:]
    old = int(grid.shape[0] ** 0.5)
    if side != old:
        grid = grid.reshape(1, old, old, width).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False)
        grid = grid.permute(0, 2, 3, 1).reshape(count, width)
    first = (embeddings.class_embedding + cls[0]).expand(batch, 1, width)
    hidden = clip.pre_layrnorm(torch.cat([first, patches + grid], dim=1))
    states = []
    for layer in clip.encoder.layers:
        attention = layer.self_attn
        x = layer.layer_norm1(hidden)
        q, k, v = (
            _heads(projection(x), attention.num_heads)
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        mixed = F.scaled_dot_product_attention(q, k, v)
        hidden = hidden + attention.out_proj(_joined(mixed))
        hidden = hidden + layer.mlp(layer.layer_norm2(hidden))
        states.append(hidden)
    return states


def decoder(
    model: LlavaForConditionalGeneration,
    x: Tensor,
    positions: Tensor,
    masks: Sequence[Tensor],
    layers: Sequence[int],
    watch: Callable[[int, Tensor, Tensor], None] | None = None,
) -> Tensor:
    """Normed hidden states [B,R,D] of the last R of the embeddings x [B,T,D].

    masks[n] [B,1,R,T] says what those R may see in layers[n]. Each token before them sees itself
    and whatever is before it: this prefix is most of a sequence with a picture, causal attention
    needs no mask for it, and in the last layer nobody asks for its result.
    watch: is shown every layer's queries [B,6,T,32] and keys [B,2,T,32].
    """
    llama = model.model.language_model
    cos, sin = _rotary(positions, x.dtype)
    start = x.shape[1] - masks[0].shape[2]
    for index, mask in zip(layers, masks, strict=True):
        layer = llama.layers[index]
        attention = layer.self_attn
        h = layer.input_layernorm(x)
        q = _rotate(_heads(attention.q_proj(h), HEADS), cos, sin)
        k = _rotate(_heads(attention.k_proj(h), KV_HEADS), cos, sin)
        v = _heads(attention.v_proj(h), KV_HEADS)
        if watch is not None:
            watch(index, q, k)
        k, v = (t.repeat_interleave(HEADS // KV_HEADS, dim=1) for t in (k, v))
        mixed = F.scaled_dot_product_attention(q[:, :, start:], k, v, attn_mask=mask)
        if index == layers[-1]:
            x = x[:, start:]
        elif start:
            q, k, v = (t[:, :, :start] for t in (q, k, v))
            prefix = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            mixed = torch.cat([prefix, mixed], dim=2)
        x = x + attention.o_proj(_joined(mixed))
        h = layer.post_attention_layernorm(x)
        mlp = layer.mlp
        x = x + mlp.down_proj(F.silu(mlp.gate_proj(h)) * mlp.up_proj(h))
    normed: Tensor = llama.norm(x)
    return normed


def packed_mask(block: Tensor) -> Tensor:
    """[B,T,T] True where a token may look: the prefix (block 0) and its own block, never ahead."""
    length = block.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=block.device).tril()
    row, column = block[:, :, None], block[:, None, :]
    return causal & ((column == 0) | (column == row))


def additive(mask: Tensor) -> Tensor:
    """[B,1,T,T] zeros and very negative numbers."""
    return torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, -1e9)[:, None]


def _heads(x: Tensor, heads: int) -> Tensor:
    batch, length, width = x.shape
    return x.view(batch, length, heads, width // heads).transpose(1, 2)


def _joined(x: Tensor) -> Tensor:
    batch, heads, length, width = x.shape
    return x.transpose(1, 2).reshape(batch, length, heads * width)


def _rotary(positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    steps = torch.arange(0, HEAD, 2, device=positions.device, dtype=torch.float32) / HEAD
    angles = positions[..., None].float() * (1.0 / 10000.0**steps)
    angles = torch.cat([angles, angles], dim=-1)[:, None]
    return angles.cos().to(dtype), angles.sin().to(dtype)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], dim=-1) * sin
