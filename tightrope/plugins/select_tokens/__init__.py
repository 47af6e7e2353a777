"""Keep the best of some candidates and everything that is no candidate, in order."""

from tightrope.plugins.select_tokens.schema import SCHEMA

__all__ = ["SCHEMA"]
