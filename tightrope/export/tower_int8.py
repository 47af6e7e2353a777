"""A tower that multiplies in int8 on a CPU: tried beside float32, and taken where it sees the same.

Real towers have inputs that lie far from all others, and one scale for all of them rounds the rest
away: no list of families says which towers bear it. The gate compares what graph vision makes of
drawn pictures, and what every selector of the bundle keeps of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import torch

from tightrope.arrays import Array
from tightrope.bundle import TowerInt8
from tightrope.errors import UnsupportedModel
from tightrope.export.distance import relative
from tightrope.export.late import LateModel
from tightrope.export.recipe import Recipe
from tightrope.export.selectors import SELECTORS
from tightrope.export.walking import session
from tightrope.export.weights import WeightFile
from tightrope.interface.names import GraphName
from tightrope.interface.tensors import INDEX, KEEP_RAMP, TEXT_EMBEDS, VISUAL_EMBEDS

MOST_DIFFERENCE, LEAST_AGREEMENT = 0.05, 0.5
"""Chance agrees in a quarter. Of tokens that are alike, methods that seek variety keep one or the
other: the reference model's tower, 1.6 % off on its own scenes, agrees in 67 % under divprune."""
_BLOCKS = (4, 8, 16, 32)
"""Blocks of one colour a side, of each drawn picture."""
_TEXT_TOKENS = 8


def gate(
    recipe: Recipe, late: LateModel, weights: WeightFile, folder: Path, trial: Path | None
) -> tuple[TowerInt8 | None, list[str]]:
    """Figures of the tower in int8, None where it is not taken, and notes that say why.

    trial: its graph, which is removed where it is not taken; None where it is not tried, or has no
    product that int8 is for. Raises UnsupportedModel where int8 was asked for and is not taken.
    """
    if not recipe.tower.int8:
        return None, list(recipe.tower.notes)
    figures = None if trial is None else measured(recipe, late, folder, trial)
    problem = "it has no product to turn" if figures is None else _problem(figures)
    if problem is None:
        return figures, []
    if recipe.config.tower_precision == "int8":
        raise UnsupportedModel(
            f"this tower does not bear int8: {problem}; leave it to --tower-precision auto, or fp32"
        )
    if trial is not None:
        trial.unlink()
        weights.drop_int8()
    return None, [f"the tower multiplies in float32: in int8 {problem}"]


def measured(recipe: Recipe, late: LateModel, folder: Path, trial: Path) -> TowerInt8:
    """How far the graph `trial` lies from the host's tower in `folder`, over drawn pictures."""
    vision = recipe.vision
    assert vision is not None
    resolution = vision.info.resolutions[0]
    size = vision.host.trial_size(resolution)
    tables = vision.model.tables(late.model, vision.info)
    prepare = vision.host.prepare(recipe.preprocessor, tables)
    graphs = [session(folder / GraphName("host", "vision").file), session(trial)]
    names = [output.name for output in graphs[0].get_outputs()]
    seen = []
    for blocks in _BLOCKS:
        inputs = prepare([_drawn(size, blocks)], resolution)
        outputs = [dict(zip(names, graph.run(names, inputs), strict=True)) for graph in graphs]
        seen.append([vision.host.tokens(each, size, resolution) for each in outputs])
    exact, rounded = (
        np.concatenate([tokens[side][VISUAL_EMBEDS][0] for tokens in seen]) for side in (0, 1)
    )
    chosen = {name: _keeps(recipe, late, folder, name) for name in recipe.selectors}
    return TowerInt8(
        embeds=relative(exact, rounded),
        agreement={
            name: float(np.mean([_shared(*map(keep, tokens)) for tokens in seen]))
            for name, keep in chosen.items()
        },
    )


def _problem(figures: TowerInt8) -> str | None:
    if not figures.embeds <= MOST_DIFFERENCE:
        return (
            f"its visual tokens differ by {figures.embeds:.1%} of their size, "
            f"{MOST_DIFFERENCE:.0%} is allowed"
        )
    for name, share in figures.agreement.items():
        if not share >= LEAST_AGREEMENT:
            return (
                f"{name} keeps {share:.0%} of the same tokens, {LEAST_AGREEMENT:.0%} is asked for"
            )
    return None


def _keeps(
    recipe: Recipe, late: LateModel, folder: Path, name: str
) -> Callable[[dict[str, Array]], set[int]]:
    """What a selector keeps of one picture's tokens, at a quarter of them."""
    graph = session(folder / GraphName("host", "select", name).file)
    inputs = [item.name for item in graph.get_inputs()]
    given: dict[str, Array] = {}
    if SELECTORS[name].text_guided:
        ids = np.random.default_rng(0).integers(0, recipe.dims.vocab_size, _TEXT_TOKENS)
        with late.computing():
            rows = late.model.get_input_embeddings()(torch.from_numpy(ids))
        given[TEXT_EMBEDS] = rows.detach().float().numpy()

    def keep(tokens: dict[str, Array]) -> set[int]:
        count = -(-tokens[VISUAL_EMBEDS].shape[1] // 4)
        values = {**tokens, **given, KEEP_RAMP: np.arange(count)}
        (index,) = graph.run([INDEX], {item: values[item] for item in inputs})
        return set(index[0].tolist())

    return keep


def _shared(first: set[int], second: set[int]) -> float:
    return len(first & second) / len(first)


def _drawn(size: Sequence[int], blocks: int) -> PIL.Image.Image:
    """Blocks of random colours under a little noise."""
    width, height = size
    rng = np.random.default_rng(blocks)
    colours = rng.integers(0, 256, (blocks, blocks, 3))
    down, across = (np.arange(side) * blocks // side for side in (height, width))
    noise = rng.normal(scale=8, size=(height, width, 3))
    pixels = np.clip(colours[down][:, across] + noise, 0, 255)
    return PIL.Image.fromarray(pixels.astype(np.uint8))
