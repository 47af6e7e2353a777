"""A prompt's tokens in their places, against a plain loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.errors import BundleError
from tightrope.inputs.layout import (
    ImageTokens,
    Text,
    Visual,
    assemble,
    reach,
    visual_tokens,
    wholes,
)
from tightrope.inputs.positions import find_rule

MARK, WIDTH = 99, 3
runs = st.one_of(
    st.builds(Visual, st.integers(1, 4)),
    st.builds(Text, st.lists(st.integers(0, 9), min_size=1, max_size=3).map(tuple)),
)


def embed(token_ids: Any) -> Any:
    """Every id has a row of its own."""
    return np.outer(np.asarray(token_ids) + 1, np.ones(WIDTH)).astype(np.float32)


@st.composite
def images(draw: st.DrawFn) -> ImageTokens:
    """An image of some runs, of whose visual tokens a part is kept; merged ones share a place."""
    layout = (Visual(draw(st.integers(1, 3))), *draw(st.lists(runs, max_size=4)))
    available = visual_tokens(layout)
    kept = sorted(draw(st.lists(st.integers(0, available - 1), max_size=available + 1)))
    index = np.array(kept, np.int64)
    embeds = np.arange(len(kept) * WIDTH, dtype=np.float32).reshape(-1, WIDTH) + 1000
    return ImageTokens(layout, index, embeds)


def plainly(token_ids: list[int], given: list[ImageTokens], start: int) -> tuple[list[Any], int]:
    """(ordinal, row, whether it is visual) of every token that is left, one by one."""
    left: list[Any] = []
    ordinal, waiting = start, iter(given)
    for token in token_ids:
        if token != MARK or not given:
            left.append((ordinal, embed([token])[0].tolist(), False))
            ordinal += 1
            continue
        image, place = next(waiting), 0
        for run in image.layout:
            if isinstance(run, Text):
                for word in run.ids:
                    left.append((ordinal, embed([word])[0].tolist(), False))
                    ordinal += 1
                continue
            for _ in range(run.count):
                for kept, row in zip(image.index, image.embeds, strict=True):
                    if kept == place:
                        left.append((ordinal, row.tolist(), True))
                ordinal, place = ordinal + 1, place + 1
    return left, ordinal


@given(
    st.lists(st.lists(st.integers(0, 9), max_size=4), min_size=1, max_size=4),
    st.lists(images(), min_size=3, max_size=3),
    st.integers(0, 50),
)
def test_every_token_stands_where_a_plain_loop_puts_it(
    texts: list[list[int]], pictures: list[ImageTokens], start: int
) -> None:
    token_ids = [token for text in texts for token in (*text, MARK)][:-1]
    given_images = pictures[: len(texts) - 1]
    if not token_ids:
        return
    left, next_ordinal = plainly(token_ids, given_images, start)
    if not left:
        return
    stream = assemble(token_ids, MARK, given_images, embed, start)
    assert stream.ordinals.tolist() == [ordinal for ordinal, _, _ in left]
    assert stream.embeds.tolist() == [row for _, row, _ in left]
    assert stream.visual.tolist() == [i for i, (_, _, visual) in enumerate(left) if visual]
    assert stream.next_ordinal == next_ordinal
    assert stream.ordinals.dtype == np.int32 and stream.embeds.dtype == np.float32


def test_without_images_a_placeholder_is_text() -> None:
    stream = assemble([1, MARK, 2], MARK, (), embed)
    assert stream.ordinals.tolist() == [0, 1, 2]
    assert stream.embeds[1].tolist() == embed([MARK])[0].tolist()
    assert len(stream.visual) == 0


def test_separators_are_never_dropped_and_count_in_the_stream() -> None:
    layout = (Visual(2), Text((7,)), Visual(2), Text((8,)))
    image = ImageTokens(layout, np.array([3]), np.full((1, WIDTH), 5, np.float32))
    stream = assemble([1, MARK, 2], MARK, [image], embed)
    # 1, then of the image: 0 1 [7] 2 3 [8], of which the visual 3 alone is kept, then 2.
    assert stream.ordinals.tolist() == [0, 3, 5, 6, 7]
    assert stream.visual.tolist() == [2]
    assert stream.next_ordinal == 8 and image.available == 4


def test_ordinal_positions_are_the_ordinals() -> None:
    found = find_rule("ordinal")((), np.array([4, 5, 9], np.int32), 0)
    assert found.positions.tolist() == [4, 5, 9] and found.delta == 0
    assert found.positions.dtype == np.int64


def test_a_rule_that_is_not_known_names_those_there_are() -> None:
    with pytest.raises(BundleError, match="positions 'spiral'; this version knows: ordinal"):
        find_rule("spiral")


def test_what_is_left_of_an_image_reaches_its_last_token_and_text_itself() -> None:
    pictures = [
        ImageTokens((Text((7,)), Visual(4), Text((8,))), np.array([0, 2]), embed([1, 2])),
        ImageTokens((Visual(3),), np.array([1]), embed([1])),
        ImageTokens((Visual(2),), np.zeros(0, np.int64), np.zeros((0, WIDTH), np.float32)),
    ]
    stream = assemble([1, MARK, 2, MARK, MARK, 3], MARK, pictures, embed, 10)
    # 1 7 [11+1: 12..15] 8 2 [18..20] [21..22] 3
    assert stream.ordinals.tolist() == [10, 11, 12, 14, 16, 17, 19, 23]
    assert reach(stream).tolist() == [10, 11, 15, 15, 16, 17, 20, 23]
    found = [(whole.start, whole.stop, whole.last) for whole in wholes(stream)]
    assert found == [(2, 4, 15), (6, 7, 20), (7, 7, 22)]
