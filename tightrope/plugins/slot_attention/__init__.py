"""Attention over a fixed number of cache slots that also decides which slots survive."""

from tightrope.plugins.slot_attention.schema import SCHEMA

__all__ = ["SCHEMA"]
