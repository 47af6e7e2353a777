"""Fine print: signs and digits a few pixels high beside large shapes.

The shapes can be told at any resolution, the print only at a high one.
"""

from __future__ import annotations

import numpy as np

from tightrope.profiles.scenes.glyphs import LETTER_HEIGHT, sign_size
from tightrope.profiles.scenes.sample import centre, finished, object_at, object_size
from tightrope.profiles.scenes.scene import Kind, Scene, Thing
from tightrope.profiles.scenes.words import SIGN_WORDS

SMALLEST, LARGEST = LETTER_HEIGHT, 14
"""Height of the print in units: below, a stroke would be thinner than a pixel at 336."""
FINE_TYPES = ("word", "digit", "colour", "shape")


def sample_fine(rng: np.random.RandomState, height: int) -> Scene:
    """Two to four large shapes, a sign and one to three digits in print that is `height` high."""
    cells = [int(cell) for cell in rng.permutation(9)]
    word = SIGN_WORDS[rng.randint(len(SIGN_WORDS))]
    things = [_print(rng, cells.pop(), height, word=word)]
    for _ in range(1 + rng.randint(3)):
        things.append(_print(rng, cells.pop(), height, digit=int(rng.randint(10))))
    things += [_shape(rng, cells.pop()) for _ in range(2 + rng.randint(3))]
    return finished(rng, "easy", things)


def _print(
    rng: np.random.RandomState, cell: int, height: int, word: str = "", digit: int = -1
) -> Thing:
    width, tall = sign_size(word or str(digit), height / LETTER_HEIGHT)
    x, y = centre(rng, cell, width, tall)
    kind: Kind = "sign" if word else "plate"
    return Thing(kind=kind, cell=cell, x=x, y=y, width=width, height=tall, word=word, digit=digit)


def _shape(rng: np.random.RandomState, cell: int) -> Thing:
    size = object_size(rng, "easy", True)
    return object_at(rng, size, True, *centre(rng, cell, size, size))
