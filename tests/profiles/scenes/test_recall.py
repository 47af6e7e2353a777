from __future__ import annotations

import re

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tightrope.profiles.scenes.recall import recall
from tightrope.profiles.scenes.words import SIGN_WORDS


@given(seed=st.integers(0, 2**32 - 1), words=st.integers(60, 400))
@settings(max_examples=60, deadline=None)
def test_the_fact_is_one_of_the_first_three_sentences_and_said_once(seed: int, words: int) -> None:
    question = recall(np.random.RandomState(seed), words)
    found = re.fullmatch(r"(.+ \.) what has the (\w+) \?", question.question)
    assert found is not None
    text, key = found.groups()
    sentences = [f"{part} ." for part in text.removesuffix(" .").split(" . ")]
    fact = f"the {key} has {question.answer} ."
    assert key in SIGN_WORDS
    assert fact in sentences[:3]
    assert text.split().count(key) == 1
    # The text stops with the sentence that reaches the length.
    assert words <= len(text.split()) < words + 12


def test_answers_are_digits_that_a_guess_finds_one_in_ten_times() -> None:
    answers = [recall(np.random.RandomState(seed), 60).answer for seed in range(1000)]
    assert set(answers) == set("0123456789")
    assert max(map(answers.count, set(answers))) < 150
