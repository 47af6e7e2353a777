"""Attention of several tokens over slots in int8 and over each other."""

from __future__ import annotations

from tightrope.plugins.slot_attention import kernel_prefill
from tightrope.plugins.slot_attention.variants import for_int8

SOURCE = for_int8(kernel_prefill.SOURCE, "slot_attention_prefill_int8_d{D}")
