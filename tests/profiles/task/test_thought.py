"""What a model said after its thought."""

from __future__ import annotations

import pytest

from tightrope.profiles.task.thought import after_thought


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (" red ", "red"),
        ("<think> it is red </think> red", "red"),
        ("it is red </think> red", "red"),
        ("<think> it is red", None),
        ("<think> a </think> b <think> c", None),
        ("<think> </think>", ""),
    ],
)
def test_an_answer_follows_the_thought(text: str, said: str | None) -> None:
    assert after_thought(text) == said
