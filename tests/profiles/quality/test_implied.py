"""Which answers need no asking, because another one must be the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tightrope.point import OperatingPoint
from tightrope.profiles.quality.implied import implied
from tightrope.profiles.task.task import Item
from tightrope.quality_file import Outcome

SEEN = Item(id="a", images=(Path("x.png"),), messages=(), answers=(), type="other", info={})
BLIND = replace(SEEN, images=())
KNOWN = Outcome(
    question="a",
    score=1.0,
    text="<think> x </think> y",
    completion_tokens=9,
    thinking_tokens=6,
    finish_reason="stop",
)
FREE = OperatingPoint(resolution=336)


@pytest.mark.parametrize(
    ("point", "item", "follows"),
    [
        (replace(FREE, thinking_tokens=7), SEEN, True),
        (replace(FREE, thinking_tokens=6), SEEN, False),  # it may be closed in other words
        (replace(FREE, thinking_tokens=0), SEEN, False),  # another prompt
        (replace(FREE, resolution=168), SEEN, False),
        (replace(FREE, selector="divprune", keep="25%"), SEEN, False),
        (replace(FREE, resolution=168), BLIND, True),
        (replace(FREE, selector="divprune", keep="25%"), BLIND, True),
        (replace(FREE, resolution=168, thinking_tokens=0), BLIND, False),
        (replace(FREE, resolution=168, kv_budget=64), BLIND, False),
    ],
)
def test_what_cannot_change_the_answer_needs_no_asking(
    point: OperatingPoint, item: Item, follows: bool
) -> None:
    assert implied(point, item, {FREE: {"a": KNOWN}}) == (KNOWN if follows else None)
    assert implied(point, replace(item, id="b"), {FREE: {"a": KNOWN}}) is None
    assert implied(point, item, {}) is None
