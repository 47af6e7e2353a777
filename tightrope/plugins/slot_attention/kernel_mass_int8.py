"""Attention that slots in int8 and new tokens received."""

from __future__ import annotations

from tightrope.plugins.slot_attention import kernel_mass
from tightrope.plugins.slot_attention.variants import for_int8

SOURCE = for_int8(kernel_mass.SOURCE, "slot_attention_mass_int8_d{D}")
