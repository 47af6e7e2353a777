"""The accuracy of the VQA benchmarks: an answer counts as far as people gave it.

Of ten people's answers each is left out in turn; the answer is worth min(1, matches / 3) among the
other nine, and the mean of that counts. Both sides are first written alike, by the rules of the
benchmarks' own program, with one difference: its table that turns "dont" into "don't" is
replaced by dropping every apostrophe.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from statistics import fmean

_DIGITS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBERS = {word: str(number) for number, word in enumerate(_DIGITS)} | {"zero": "0"}
_ARTICLES = ("a", "an", "the")
_MARKS = ';/[]"{}()=+\\_-><@`,?!'


def vqa_accuracy(text: str, answers: Sequence[str]) -> float:
    """How much of `answers`, two or more, agrees with `text`: 0..1."""
    given = written_alike(text)
    agrees = [written_alike(answer) == given for answer in answers]
    return fmean(min(1.0, (sum(agrees) - one) / 3) for one in agrees)


def written_alike(text: str) -> str:
    """The text without punctuation, articles and capitals, number words as digits."""
    text = " ".join(text.lower().split()).replace("'", "")
    thousands = re.search(r"\d,\d", text)
    # Each mark is judged by the text as it came, not by what the marks before it left.
    bare = text
    for mark in _MARKS:
        alone = f"{mark} " in text or f" {mark}" in text
        bare = bare.replace(mark, "" if alone or thousands else " ")
    words = re.sub(r"\.(?!\d)", "", bare).split()
    return " ".join(_NUMBERS.get(word, word) for word in words if word not in _ARTICLES)
