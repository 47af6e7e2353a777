"""Which matrices of floats get codes in an int4 export, of how many bits, and what that costs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from tightrope.arrays import Floats
from tightrope.errors import InputError
from tightrope.export.distance import relative
from tightrope.export.late import LateModel, Place, Read, rests
from tightrope.export.rounding import Rounding
from tightrope.progress import Progress

Asked = Sequence[dict[str, torch.Tensor]]
"""What the model is called with, one prompt after the other."""


def matrices(late: LateModel, rounding: Rounding) -> list[Place]:
    """Of the language model, those that would get codes."""
    decoder, head = late.model.get_decoder(), late.model.get_output_embeddings()
    modules = {*decoder.modules(), head}
    return [
        place
        for place in late.places()
        if place.module in modules
        and isinstance(place.module, torch.nn.Linear)
        and rests(place.value)
        and rounding.fits(place.value)
    ]


def rounded(late: LateModel, rounding: Rounding, names: Collection[str] | None = None) -> Read:
    """Reads matrices as they come out of their codes; names: only these."""
    places = {
        (place.module, place.leaf)
        for place in matrices(late, rounding)
        if names is None or place.name in names
    }

    def read(place: Place) -> torch.Tensor | None:
        if (place.module, place.leaf) not in places:
            return None
        value = late.parameters[place.name]
        return torch.from_numpy(rounding.coded(place.name, value).weight())

    return read


def logits(late: LateModel, asked: Asked, read: Read = lambda _: None) -> list[Floats]:
    """Of each prompt, float32 [S,vocab]."""
    with late.computing(read), torch.no_grad():
        return [late.model(**one, use_cache=False).logits[0].float().numpy() for one in asked]


def error(expected: Sequence[Floats], measured: Sequence[Floats]) -> float:
    """Relative difference of all logits."""
    return relative(np.concatenate(expected), np.concatenate(measured))


@dataclass(frozen=True, slots=True)
class Costly:
    """A matrix, and what its four bits cost the logits when all others are as they were."""

    name: str
    weights: int
    error: float


def costs(late: LateModel, rounding: Rounding, asked: Asked, progress: Progress) -> list[Costly]:
    """Of every matrix by itself, in the order of the model; one call of it for each."""
    places, expected = matrices(late, rounding), logits(late, asked)
    found = []
    for number, place in enumerate(places):
        progress(f"measuring {place.name}", number / len(places))
        measured = logits(late, asked, rounded(late, rounding, {place.name}))
        found.append(Costly(place.name, place.value.numel(), error(expected, measured)))
    return found


def average_bits(found: Sequence[Costly], rounding: Rounding) -> float:
    """Bits a weight of matrices, on the host."""
    return sum(one.weights * rounding.bits_of(one.name) for one in found) / sum(
        one.weights for one in found
    )


def with_eight_bits(rounding: Rounding, found: Sequence[Costly], bits: float) -> Rounding:
    """Eight bits for those that cost most for their size, until `bits` a weight are reached.

    Raises InputError where four bits for all are more already.
    """
    used = average_bits(found, rounding)
    if used > bits:
        raise InputError(
            f"bits is {bits}; four bits with scales of blocks of {rounding.block_size} are "
            f"{used:.2f} already: ask for more bits, or for larger blocks"
        )
    # Errors of matrices add up as squares do.
    for one in sorted(found, key=lambda one: one.error**2 / one.weights, reverse=True):
        wider = replace(rounding, eight_bits=rounding.eight_bits | {one.name})
        if average_bits(found, wider) <= bits:
            rounding = wider
    return rounding
