"""Attention of one token over slots in int8, in splits."""

from __future__ import annotations

from tightrope.plugins.slot_attention import kernel_step
from tightrope.plugins.slot_attention.variants import for_int8

SOURCE = for_int8(kernel_step.SOURCE, "slot_attention_step_int8_d{D}")
