"""What a scene may hold, and what its splits share."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightrope.errors import InputError
from tightrope.profiles.scenes.glyphs import digit_glyphs, sign_size, word_bitmap
from tightrope.profiles.scenes.sample import LEVELS, SPLITS, sample_scene, scene_rng
from tightrope.profiles.scenes.scene import SIDE, Level, Scene, Split
from tightrope.profiles.scenes.words import SIGN_WORDS

seeds = st.integers(0, 2**32 - 1)


def scene(split: Split, seed: int, level: Level, index: int = 0) -> Scene:
    return sample_scene(scene_rng(split, seed, index), split, level)


@given(split=st.sampled_from(SPLITS), seed=seeds, level=st.sampled_from(LEVELS))
@settings(max_examples=60, deadline=None)
def test_things_lie_in_cells_of_their_own_in_reading_order(
    split: Split, seed: int, level: Level
) -> None:
    found = scene(split, seed, level)
    cells = [thing.cell for thing in found.things]
    assert cells == sorted(set(cells))
    for thing in found.things:
        row, column = divmod(thing.cell, 3)
        left, top, right, bottom = thing.box
        assert column * SIDE / 3 < left < right < (column + 1) * SIDE / 3
        assert row * SIDE / 3 < top < bottom < (row + 1) * SIDE / 3


@given(split=st.sampled_from(SPLITS), seed=seeds, level=st.sampled_from(LEVELS))
@settings(max_examples=60, deadline=None)
def test_nothing_overlaps_and_little_is_in_a_scene(split: Split, seed: int, level: Level) -> None:
    found = scene(split, seed, level)
    kinds = [thing.kind for thing in found.things]
    assert 2 <= kinds.count("object") <= 8
    assert kinds.count("plate") <= 2 and kinds.count("sign") <= 1
    for one, other in combinations(found.things, 2):
        apart_across = one.box[2] < other.box[0] or other.box[2] < one.box[0]
        apart_down = one.box[3] < other.box[1] or other.box[3] < one.box[1]
        assert apart_across or apart_down


@given(seed=seeds, level=st.sampled_from(LEVELS))
@settings(max_examples=60, deadline=None)
def test_large_and_small_never_meet(seed: int, level: Level) -> None:
    limits = {"easy": (68, 84), "medium": (46, 58), "hard": (30, 38)}[level]
    for thing in scene("test", seed, level).objects:
        assert thing.width >= limits[1] if thing.large else thing.width <= limits[0]


@given(split=st.sampled_from(SPLITS), seed=seeds)
@settings(max_examples=60, deadline=None)
def test_a_plate_says_the_digit_that_it_shows(split: Split, seed: int) -> None:
    labels = digit_glyphs(split)[1]
    for thing in scene(split, seed, "medium").things:
        if thing.kind == "plate":
            assert labels[thing.glyph] == thing.digit


def test_splits_share_no_scene_and_no_digit() -> None:
    glyphs = {split: {glyph.tobytes() for glyph in digit_glyphs(split)[0]} for split in SPLITS}
    assert sum(len(digit_glyphs(split)[1]) for split in SPLITS) == 1797
    scenes = {split: {repr(scene(split, 0, "hard", at)) for at in range(200)} for split in SPLITS}
    for one, other in combinations(SPLITS, 2):
        assert not glyphs[one] & glyphs[other]
        assert not scenes[one] & scenes[other]


@pytest.mark.parametrize("split", SPLITS)
def test_every_digit_is_in_every_split(split: Split) -> None:
    assert set(digit_glyphs(split)[1].tolist()) == set(range(10))


def test_the_digits_are_those_of_scikit_learn() -> None:
    theirs = pytest.importorskip("sklearn.datasets").load_digits()
    turn = np.arange(len(theirs.target)) % 10
    parts = {"test": (turn == 4) | (turn == 9), "dev": turn == 8}
    parts["train"] = ~parts["test"] & ~parts["dev"]
    for split in SPLITS:
        images, labels = digit_glyphs(split)
        np.testing.assert_array_equal(images, theirs.images[parts[split]])
        np.testing.assert_array_equal(labels, theirs.target[parts[split]])


@pytest.mark.parametrize("word", SIGN_WORDS)
def test_a_sign_fits_into_a_cell_and_has_a_margin(word: str) -> None:
    assert max(sign_size(word, 4)) < SIDE / 3
    ink = word_bitmap(word)
    assert ink.shape == (11, 6 * len(word) + 3)
    assert ink.any() and not ink[:2].any() and not ink[-2:].any()
    assert not ink[:, :2].any() and not ink[:, -2:].any()


def test_words_on_signs_look_different() -> None:
    assert len({word_bitmap(word).tobytes() for word in SIGN_WORDS}) == len(SIGN_WORDS)
    assert SIDE % 3 == 0


@pytest.mark.parametrize("seed", [-1, 2**32, 1.0, True, "0", None])
def test_a_seed_out_of_range_is_refused(seed: object) -> None:
    with pytest.raises(InputError, match="seed"):
        scene_rng("test", seed, 0)  # type: ignore[arg-type]


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(InputError, match="train, dev, test"):
        scene_rng("validation", 0, 0)  # type: ignore[arg-type]
