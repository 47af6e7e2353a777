"""Attention within each of several segments that stand packed in one row."""

from tightrope.plugins.varlen_attention.schema import SCHEMA

__all__ = ["SCHEMA"]
