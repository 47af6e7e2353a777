"""Eviction policies are data: eight numbers that one graph reads at run time.

A new token starts at `position * ordinal - key_norm * |key|`; every call then sets
`score = decay * score + attention * mass`, where mass is the softmax weight that the token
received from the last `score_window` queries of the call (0: from all), summed over the query
heads of its KV head and, with `pool`, averaged over its neighbours among the new tokens. The
lowest scores leave first; the first `sinks` and the newest `recent` tokens never do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tightrope.errors import InputError

DEFAULT_POLICY = "snapkv"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One published way to score slots, with its defaults."""

    name: str
    decay: float
    attention: float
    position: float
    key_norm: float
    score_window: int
    pool: bool
    paper: str
    sinks: int = 4
    recent: int | None = 16
    """None: half of the budget."""

    def protected(self, budget: int, sinks: int | None, recent: int | None) -> tuple[int, int]:
        """Sinks and recent tokens that stay, under `budget` slots.

        Raises InputError where they would fill the budget: nothing could then be given up.
        """
        sinks = self.sinks if sinks is None else sinks
        if recent is None:
            recent = budget // 2 if self.recent is None else self.recent
        if budget <= sinks + recent:
            raise InputError(
                f"kv_budget is {budget}, but {self.name} keeps {sinks} sinks and {recent} recent "
                f"tokens; accepted: {sinks + recent + 1} or more, or smaller sinks and recent"
            )
        return sinks, recent

    def vector(self, sinks: int, recent: int) -> npt.NDArray[np.float32]:
        """The float32 [8] that a graph reads: decay .. pool, then sinks and recent."""
        numbers = (self.decay, self.attention, self.position, self.key_norm)
        return np.array(
            [*numbers, self.score_window, float(self.pool), sinks, recent], dtype=np.float32
        )


POLICIES = {
    policy.name: policy
    for policy in (
        Policy(
            name="streaming",
            decay=1,
            attention=0,
            position=1,
            key_norm=0,
            score_window=1,
            pool=False,
            paper="StreamingLLM, Xiao et al. 2024, arXiv:2309.17453",
        ),
        Policy(
            name="h2o",
            decay=1,
            attention=1,
            position=0,
            key_norm=0,
            score_window=0,
            pool=False,
            recent=None,
            paper="H2O, Zhang et al. 2023, arXiv:2306.14048",
        ),
        Policy(
            name="tova",
            decay=0,
            attention=1,
            position=0,
            key_norm=0,
            score_window=1,
            pool=False,
            paper="TOVA, Oren et al. 2024, arXiv:2401.06104",
        ),
        Policy(
            name="knorm",
            decay=1,
            attention=0,
            position=0,
            key_norm=1,
            score_window=1,
            pool=False,
            paper="L2 norm of keys, Devoto et al. 2024, arXiv:2406.11430",
        ),
        Policy(
            name="snapkv",
            decay=1,
            attention=1,
            position=0,
            key_norm=0,
            score_window=32,
            pool=True,
            recent=32,
            paper="SnapKV, Li et al. 2024, arXiv:2404.14469",
        ),
    )
}


def find_policy(name: str) -> Policy:
    """The policy called `name`; raises InputError with the names there are."""
    if name not in POLICIES:
        raise InputError(f"policy is {name!r}; accepted: {', '.join(POLICIES)}")
    return POLICIES[name]
