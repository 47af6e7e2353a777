"""FlashVLM: the published loop, and what makes the method what it is."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume

from tightrope.arrays import Floats, Indices
from tightrope.export.selectors import Image
from tightrope.export.selectors.flashvlm import importance, score
from tightrope.export.selectors.steps import best, ranking
from tightrope.interface.tensors import (
    CLS_ATTENTION,
    TEXT_EMBEDS,
    TOWER_STATES,
    VISUAL_EMBEDS,
)

SIGNS = np.asarray([-1, 1], np.float32)


Scene = dict[str, Floats]


def scene(rng: np.random.Generator, images: int, available: int, _: Floats) -> Scene:
    """Scores of tokens are apart; cosines of their states are exact, and many are equal."""
    drawn = draw(rng, images, available)
    scores = np.stack([importance(image_in(drawn, i)) for i in range(images)])
    assume(np.diff(np.sort(scores), append=np.inf).min() > 3e-4)
    return drawn


def draw(rng: np.random.Generator, images: int, available: int) -> Scene:
    """Distinct attention, states of +-1, and embeddings that half precision leaves as they are."""
    attention = [rng.permutation(available) / available for _ in range(images)]
    drawn: dict[str, Any] = {
        VISUAL_EMBEDS: rng.normal(size=(images, available, 16)).astype(np.float16),
        CLS_ATTENTION: np.asarray(attention),
        TOWER_STATES: rng.choice(SIGNS, size=(images, 1 + available, 16)),
        TEXT_EMBEDS: rng.normal(size=(5, 16)).astype(np.float16),
    }
    return {name: value.astype(np.float32) for name, value in drawn.items()}


def image_in(inputs: Scene, i: int = 0) -> Image:
    own: Any = {n: value if n == TEXT_EMBEDS else value[i] for n, value in inputs.items()}
    return Image(**own)


def choose(image: Image, keep: int, **options: Any) -> Indices:
    return best(score(image, keep, **options), keep)


@pytest.mark.parametrize("available", [576, 1024])
@pytest.mark.parametrize("keep", [1, 2, 63, 500])
def test_large_images_end_at_exactly_the_wanted_count(
    agree: Any, available: int, keep: int
) -> None:
    inputs = draw(np.random.default_rng(available), 1, available)
    inputs[VISUAL_EMBEDS][:] = 0
    index, _ = agree("flashvlm", inputs, keep)
    assert len(set(index[0].tolist())) == keep


def test_the_rounds_suffice_for_4096_tokens() -> None:
    image = image_in(draw(np.random.default_rng(1), 1, 4096))
    for keep in (1, 7, 1000):
        assert score(image, keep).sum() == keep


def clustered(seed: int, available: int = 576, clusters: int = 24) -> Image:
    """Tokens around a few centres, as the patches of objects and background are."""
    rng = np.random.default_rng(seed)
    member = rng.integers(0, clusters, available)
    centre, shade = rng.normal(size=(clusters, 64)), rng.normal(size=(1 + available, 64))
    states = np.concatenate([centre[:1], centre[member]]) + 0.5 * shade
    embeds = states[1:] @ rng.normal(size=(64, 64)) / 8
    return Image(
        visual_embeds=embeds.astype(np.float32),
        cls_attention=rng.dirichlet(np.full(available, 0.5)).astype(np.float32),
        tower_states=states.astype(np.float32),
        text_embeds=rng.normal(size=(12, 64)).astype(np.float32),
    )


def likeness(index: Any, states: Any) -> float:
    """Mean cosine of a kept token to the nearest other one: low is diverse."""
    rows = states[1:][index]
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return float(np.sort(rows @ rows.T, axis=1)[:, -2].mean())


@pytest.mark.parametrize(("keep", "overlap"), [(64, 0.36), (144, 0.5)])
def test_few_rounds_are_as_diverse_as_the_published_loop(keep: int, overlap: float) -> None:
    """The sets share their important half; of the rest parity decides, diversity is the same.

    The last bits of a processor's products decide among even tokens: one scene's gain varies from
    machine to machine, the mean of many does not.
    """
    shares, few, published, chance = [], [], [], []
    for seed in range(24):
        image = clustered(seed)
        states = image.tower_states
        ours = choose(image, keep)
        theirs = choose(image, keep, rounds=None)
        order = ranking(importance(image))
        rest = np.random.default_rng(seed).permutation(order[keep // 2 :])
        drawn = np.concatenate([order[: keep // 2], rest[: keep - keep // 2]])
        shares.append(len(np.intersect1d(ours, theirs)) / len(np.union1d(ours, theirs)))
        few.append(likeness(ours, states))
        published.append(likeness(theirs, states))
        chance.append(likeness(drawn, states))
    assert np.mean(shares) > overlap
    gain = (np.mean(chance) - np.mean(few)) / (np.mean(chance) - np.mean(published))
    assert gain > 0.85


@pytest.mark.parametrize("planted", [0, 17, 39])
def test_a_token_that_says_what_the_question_says_is_important(planted: int) -> None:
    image = image_in(draw(np.random.default_rng(3), 1, 40))
    text = image.text_embeds
    image.visual_embeds[planted] = 3 * text[np.linalg.norm(text, axis=1).argmax()]
    assert importance(image, eta=1).argmax() == planted
    # Of two kept tokens one is important.
    assert planted in choose(image, 2, eta=1)


def of_equal_scores(seed: int, available: int) -> Scene:
    inputs = draw(np.random.default_rng(seed), 1, available)
    inputs[VISUAL_EMBEDS][:], inputs[CLS_ATTENTION][:] = 0, 0.05
    return inputs


def test_equal_scores_favour_the_lower_index(agree: Any) -> None:
    index, _ = agree("flashvlm", of_equal_scores(6, 20), 8)
    assert index[0, :4].tolist() == [0, 1, 2, 3]


def test_the_order_of_tokens_matters_through_the_parity_of_ranks() -> None:
    """Unlike DivPrune: with equal scores rank is raster order."""
    image = image_in(of_equal_scores(8, 40))
    plain = choose(image, 10)
    order = np.random.default_rng(2).permutation(40)
    cls, patches = image.tower_states[:1], image.tower_states[1:]
    moved = choose(replace(image, tower_states=np.concatenate([cls, patches[order]])), 10)
    assert set(order[moved].tolist()) != set(plain.tolist())
