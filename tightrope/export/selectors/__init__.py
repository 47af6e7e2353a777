"""Selection before the language model: which visual tokens it sees.

One method, one file; the table finds it.
"""

from tightrope.export.selectors.selector import Choice, Context, Image, Selector
from tightrope.registry import discover

SELECTORS = discover(__name__, Selector)

__all__ = ["SELECTORS", "Choice", "Context", "Image", "Selector"]
