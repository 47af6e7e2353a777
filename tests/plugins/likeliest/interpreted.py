"""The kernel `likeliest` in Triton's interpreter beside its reference, one case after another.

    TRITON_INTERPRET=1 python interpreted.py

prints as JSON for each case whether both give the same. A process of its own, because what Triton
makes of a kernel is decided when its file is imported.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import torch

from tightrope.plugins.likeliest import BLOCK, COUNT, RUN, blocks_of
from tightrope.plugins.likeliest.kernel import likeliest
from tightrope.plugins.likeliest.reference import likeliest as expected


def rows() -> list[Any]:
    """Logits [N,vocab]: plain ones, many that are equal, few, and some that are no numbers."""
    rng = np.random.default_rng(0)
    plain = rng.normal(size=(2, 2500))
    alike = np.round(rng.normal(size=(1, 1024)))
    broken = rng.normal(size=(1, 1100))
    broken[0, [3, 700]] = np.nan, np.inf
    unlikely = np.full((1, 1030), -np.inf)
    unlikely[0, [7, 64, 1029]] = 1, 2, 3
    return [plain, alike, broken, unlikely, rng.normal(size=(3, 5))]


def case(logits: Any) -> bool:
    given = torch.from_numpy(logits.astype(np.float32))
    count, vocabulary = given.shape
    blocks = blocks_of(vocabulary)
    values = torch.zeros(count, blocks, COUNT)
    tokens = torch.zeros(count, blocks, COUNT, dtype=torch.int32)
    sizes = {"BLOCK": BLOCK, "RUN": RUN, "COUNT": COUNT}
    likeliest[(blocks, count, 1)](given, values, tokens, vocabulary, blocks, **sizes)
    wanted, ids = expected(given.numpy())
    told = wanted > -np.inf
    same = np.array_equal(values.numpy(), wanted)
    return same and np.array_equal(tokens.numpy()[told], ids[told])


if __name__ == "__main__":
    with np.errstate(invalid="ignore"):
        json.dump([case(each) for each in rows()], sys.stdout)
