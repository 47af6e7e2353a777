"""Questions about a text: a fact early in a long context, for budgets of the KV cache."""

from __future__ import annotations

import numpy as np

from tightrope.profiles.scenes.questions import Question
from tightrope.profiles.scenes.words import COLOURS, SHAPES, SIGN_WORDS, article, place


def recall(rng: np.random.RandomState, words: int) -> Question:
    """A question about one of the first three facts of a text of about `words` words."""
    text, facts = story(rng, words)
    key, digit = facts[rng.randint(3)]
    return Question(type="recall", question=f"{text} {asking(key)}", answer=digit)


def asking(key: str) -> str:
    return f"what has the {key} ?"


def story(rng: np.random.RandomState, words: int) -> tuple[str, list[tuple[str, str]]]:
    """A text, and its facts as pairs of a word and a digit.

    Three facts come first, then other sentences with more facts between them.
    """
    keys = [SIGN_WORDS[at] for at in rng.permutation(len(SIGN_WORDS))]
    facts = [(key, str(rng.randint(10))) for key in keys]
    sentences = [f"the {key} has {digit} ." for key, digit in facts[:3]]
    told, later = facts[:3], facts[3:]
    while sum(sentence.count(" ") + 1 for sentence in sentences) < words:
        if later and rng.random_sample() < 0.2:
            key, digit = later.pop()
            told.append((key, digit))
            sentences.append(f"the {key} has {digit} .")
        else:
            sentences.append(_filler(rng))
    return " ".join(sentences), told


def _filler(rng: np.random.RandomState) -> str:
    colours, shapes = list(COLOURS), list(SHAPES)
    colour, shape = colours[rng.randint(len(colours))], shapes[rng.randint(len(shapes))]
    return f"there is {article(colour)} {colour} {shape} at the {place(int(rng.randint(9)))} ."
