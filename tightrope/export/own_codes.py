"""How an int4 export rounds the matrices that its checkpoint has in floats: what was asked for, and
what a calibration set or a budget of bits makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from tightrope.errors import InputError
from tightrope.export.accounting import listed
from tightrope.export.calibration import Sample, prompts
from tightrope.export.config import ExportConfig
from tightrope.export.late import LateModel
from tightrope.export.quantising import (
    Costly,
    average_bits,
    costs,
    error,
    logits,
    matrices,
    rounded,
    with_eight_bits,
)
from tightrope.export.recipe import Recipe
from tightrope.export.rounding import Rounding
from tightrope.export.scaling import scaled
from tightrope.progress import Progress

_TOKENS = 40
_HELD_OUT = 4
"""Every so many-th prompt is not scaled for: the error is measured on it."""


def own_codes(
    recipe: Recipe, late: LateModel, samples: Sequence[Sample] | None, progress: Progress
) -> tuple[LateModel, Rounding, list[str]]:
    """The model to write, how its matrices are rounded, and sentences for the summary.

    samples: the calibration set. Raises InputError for one that the model cannot read, and for
    what has no effect on this export.
    """
    config, said = recipe.config, list[str]()
    rounding = Rounding(config.block_size, config.symmetric)
    kept = any(entry.read is not None for entry in late.published.values())
    if asked_for := _choices(config, samples):
        if not recipe.precision.quantized:
            raise InputError(f"{asked_for} has no effect in {config.precision}; ask for int4")
        if kept:
            raise InputError(
                f"{asked_for} has no effect: the checkpoint's own codes are kept; leave it out, or "
                "export what the checkpoint was made from"
            )
    if not recipe.precision.quantized or kept:
        return late, rounding, said
    if config.head_bits == 8:
        head = late.model.get_output_embeddings().weight
        rounding = replace(rounding, eight_bits=_names(late, head))
    if samples is None:
        rng = np.random.default_rng(config.seed)
        asked = [
            {"input_ids": torch.from_numpy(rng.integers(0, recipe.dims.vocab_size, (1, _TOKENS)))}
        ]
    else:
        asked = prompts(recipe, late, samples)
        late = _calibrated(late, rounding, asked, said)
    if config.bits is not None:
        found = costs(late, rounding, asked, progress)
        plain, rounding = rounding, with_eight_bits(rounding, found, config.bits)
        said.append(_said_of_bits(late, asked, found, plain, rounding))
        every = {place.name: place.value for place in matrices(late, rounding)}
        wide = rounding.eight_bits & every.keys()
        names = frozenset[str]().union(*(_names(late, every[name]) for name in wide))
        rounding = replace(rounding, eight_bits=rounding.eight_bits | names)
    return late, rounding, said


def _said_of_bits(
    late: LateModel,
    asked: list[dict[str, torch.Tensor]],
    found: Sequence[Costly],
    before: Rounding,
    after: Rounding,
) -> str:
    expected = logits(late, asked)
    less, more = (
        error(expected, logits(late, asked, rounded(late, rounding)))
        for rounding in (after, before)
    )
    wide = [one.name for one in found if one.name in after.eight_bits]
    return (
        f"{len(wide)} of {len(found)} matrices have 8 bits, all together "
        f"{average_bits(found, after):.2f} a weight, not {average_bits(found, before):.2f}: logit "
        f"error {less:.3g}, not {more:.3g}: {listed(wide)}"
    )


def _choices(config: ExportConfig, samples: Sequence[Sample] | None) -> str:
    """What was asked for that rounding alone obeys."""
    chosen = {
        "a calibration set": samples is not None,
        "bits": config.bits is not None,
        "head_bits": config.head_bits != 4,
        "symmetric": config.symmetric,
    }
    return " and ".join(name for name, wanted in chosen.items() if wanted)


def _calibrated(
    late: LateModel, rounding: Rounding, asked: list[dict[str, torch.Tensor]], said: list[str]
) -> LateModel:
    """The model scaled by its activations, where that brings its logits nearer."""
    held = asked[::_HELD_OUT] if len(asked) >= _HELD_OUT else asked
    used = [one for one in asked if not any(one is other for other in held)] or asked
    expected = logits(late, held)
    before = error(expected, logits(late, held, rounded(late, rounding)))
    scaled_model, count = scaled(late, rounding, used)
    after = error(expected, logits(scaled_model, held, rounded(scaled_model, rounding)))
    about = f"by the activations of {len(used)} prompts"
    if after < before:
        said.append(
            f"{count} matrices were scaled {about}: logit error {after:.3g}, not {before:.3g}"
        )
        return scaled_model
    late.settle(lambda place: late.parameters[place.name])
    said.append(f"nothing was scaled {about}: logit error {after:.3g} instead of {before:.3g}")
    return late


def _names(late: LateModel, value: torch.Tensor) -> frozenset[str]:
    """All that a parameter is called."""
    return frozenset(place.name for place in late.places() if place.value is value)
