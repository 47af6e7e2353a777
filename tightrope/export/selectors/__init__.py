"""Selection before the language model: which visual tokens it sees.

One method, one file, one entry here.
"""

from tightrope.export.selectors import divprune, flashvlm, random, uniform, visionzip
from tightrope.export.selectors.selector import Context, Selector

SELECTORS: dict[str, Selector] = {
    selector.name: selector
    for selector in (
        visionzip.VISIONZIP,
        divprune.DIVPRUNE,
        flashvlm.FLASHVLM,
        uniform.UNIFORM,
        random.RANDOM,
    )
}

__all__ = ["SELECTORS", "Context", "Selector"]
