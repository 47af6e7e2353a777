"""What was written to a bundle, parameter by parameter, as a late model computes with it."""

from __future__ import annotations

from collections.abc import Collection

import torch

from tightrope.export.late import LateModel, Place, Read
from tightrope.export.weights import WeightFile


def written(
    late: LateModel, weights: WeightFile, names: Collection[str], table: bool = False
) -> Read:
    """Reads the parameters that graphs call by one of `names`; the others stay the checkpoint's.

    table: whether the embeddings are those that the host gathers.
    """
    embeddings, called = late.model.get_input_embeddings(), _called(late, weights)

    def read(place: Place) -> torch.Tensor | None:
        if place.module is embeddings:
            return weights.rounded(place.name) if table else None
        name = called.get(id(place.value))
        return None if name is None or name not in names else weights.in_graphs(name)

    return read


def all_written(late: LateModel, weights: WeightFile) -> Read:
    """Reads every parameter as the bundle has it; what no graph reads is rounded like the rest."""
    of_graphs = written(late, weights, weights.stored(), table=True)

    def read(place: Place) -> torch.Tensor | None:
        value = of_graphs(place)
        return weights.rounded(place.name) if value is None else value

    return read


def _called(late: LateModel, weights: WeightFile) -> dict[int, str]:
    """What graphs call a parameter, by its identity: one that is tied may be in codes as a head."""
    stored, called = weights.stored(), dict[int, str]()
    for place in late.places():
        if place.name in stored and (
            id(place.value) not in called or weights.is_quantized(place.name)
        ):
            called[id(place.value)] = place.name
    return called
