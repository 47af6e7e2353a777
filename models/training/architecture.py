"""The reference model: a small but ordinary LLaVA, freshly initialised."""

from __future__ import annotations

import math

import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from models.training.vocabulary import BOS, EOS, IDS, IMAGE, PAD, WORDS

PATCH, SIDE = 14, 336
LAYERS = 12
HEADS, KV_HEADS, HEAD = 6, 2, 32
TOWER_LAYERS = 6
WORKING_LAYERS = (2, 4, 5, 6, 7)
"""Trained first; the others start as the identity. The picture is read in the middle third."""
NAMES_LAYER, PROMPT_LAYER = 4, 5
"""Where the end of a name looks for the thing, and where a prompt's last token looks for it."""
TOWER_WIDTH, WIDTH = 160, 192


def config() -> LlavaConfig:
    vision = CLIPVisionConfig(
        hidden_size=TOWER_WIDTH,
        intermediate_size=512,
        num_hidden_layers=TOWER_LAYERS,
        num_attention_heads=5,
        image_size=SIDE,
        patch_size=PATCH,
        projection_dim=TOWER_WIDTH,
        hidden_act="gelu",
    )
    text = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=WIDTH,
        intermediate_size=448,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        head_dim=HEAD,
        max_position_embeddings=4096,
        rms_norm_eps=1e-5,
        bos_token_id=IDS[BOS],
        eos_token_id=IDS[EOS],
        pad_token_id=IDS[PAD],
        tie_word_embeddings=False,
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=IDS[IMAGE],
        image_seq_length=(SIDE // PATCH) ** 2,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )


def create(seed: int) -> LlavaForConditionalGeneration:
    """The model with float32 weights; layers outside WORKING_LAYERS pass everything through."""
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(config()).float()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("position_embedding.weight") or name.endswith("class_embedding"):
                weight.normal_(std=0.3)
            elif "embed_tokens" in name:
                weight.normal_(std=0.5)
            elif weight.ndim >= 2:
                weight.normal_(std=1 / math.sqrt(weight[0].numel()))
            elif name.endswith("bias"):
                weight.zero_()
        for layer in model.model.vision_tower.encoder.layers:
            layer.self_attn.out_proj.weight /= math.sqrt(2 * TOWER_LAYERS)
            layer.mlp.fc2.weight /= math.sqrt(2 * TOWER_LAYERS)
        for index, layer in enumerate(model.model.language_model.layers):
            scale = 1 / math.sqrt(2 * len(WORKING_LAYERS)) if index in WORKING_LAYERS else 0.0
            layer.self_attn.o_proj.weight *= scale
            layer.mlp.down_proj.weight *= scale
    return model
