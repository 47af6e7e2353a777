"""Matrix product with a weight stored in four bits."""

from tightrope.plugins.int4_matmul.schema import SCHEMA

__all__ = ["SCHEMA"]
