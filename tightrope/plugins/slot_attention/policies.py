"""Eviction policies are data: eight numbers that one graph reads at run time.

What the first six mean: `slot_attention/scores/recurrence.py`. Mass is the softmax weight that a
token received from the last `score_window` queries of the call (0: from all), summed over the
query heads of its KV head. The lowest scores leave first; the first `sinks` and the newest
`recent` tokens never do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tightrope.arrays import Floats
from tightrope.checks import check_one_of, shown
from tightrope.errors import InputError

DEFAULT_POLICY = "snapkv"
SCORING = 6
"""The first so many of a policy's numbers decide scores, the rest what is protected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One published way to score slots; an entry says only what makes it itself."""

    name: str
    paper: str
    decay: float = 1
    attention: float = 0
    position: float = 0
    key_norm: float = 0
    score_window: int = 0
    pool: bool = False
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
                f"kv_budget is {budget}, but {self.name} keeps {shown(sinks)} sinks and "
                f"{shown(recent)} recent tokens; accepted: {shown(sinks + recent + 1)} or more, or "
                "smaller sinks and recent"
            )
        return sinks, recent

    def vector(self, sinks: int, recent: int) -> Floats:
        """The float32 [8] that a graph reads, in the order of `PolicyNumbers`."""
        numbers = (self.decay, self.attention, self.position, self.key_norm)
        return np.array(
            [*numbers, self.score_window, float(self.pool), sinks, recent], dtype=np.float32
        )


POLICIES = {
    policy.name: policy
    for policy in (
        Policy(
            name="streaming",
            paper="StreamingLLM, Xiao et al. 2024, arXiv:2309.17453",
            position=1,
            score_window=1,
        ),
        Policy(
            name="h2o",
            paper="H2O, Zhang et al. 2023, arXiv:2306.14048",
            attention=1,
            recent=None,
        ),
        Policy(
            name="tova",
            paper="TOVA, Oren et al. 2024, arXiv:2401.06104",
            decay=0,
            attention=1,
            score_window=1,
        ),
        Policy(
            name="knorm",
            paper="L2 norm of keys, Devoto et al. 2024, arXiv:2406.11430",
            key_norm=1,
            score_window=1,
        ),
        Policy(
            name="snapkv",
            paper="SnapKV, Li et al. 2024, arXiv:2404.14469",
            attention=1,
            score_window=32,
            pool=True,
            recent=32,
        ),
    )
}

NEWEST = POLICIES["streaming"].vector(sinks=0, recent=1)
"""The policy [8] of a layer that sees a window: whoever is youngest stays."""


def find_policy(name: str) -> Policy:
    """The policy called `name`; raises InputError with the names there are."""
    check_one_of("policy", name, POLICIES)
    return POLICIES[name]


def unbudgeted(layers: int) -> Floats:
    """The policy [L,8] of a call under which nothing leaves.

    Attention is accumulated all the same, so that a later turn may set a budget.
    """
    return unprotected(np.tile(POLICIES[DEFAULT_POLICY].vector(0, 0), (layers, 1)))


def unprotected(policy: Floats) -> Floats:
    """`policy` [L,8] with the same scores, where nothing leaves and so nothing needs protection."""
    free: Floats = policy.copy()
    free[:, SCORING:] = 0, 1
    return free


def scoring(policy: Floats) -> bytes:
    """What scores of `policy` [L,8] depend on; protecting more or fewer tokens changes none."""
    return policy[:, :SCORING].tobytes()


def scores_any_cut(policy: Floats) -> bool:
    """Whether `policy` [L,8] scores alike however a prompt is cut into calls.

    So it is where attention counts for nothing, where that of every query counts, and where that of
    the last one alone does: a window over a call's last queries ends with the call.
    """
    decay, attention, _, _, window, pool = policy.T[:SCORING]
    unread = (decay == 1) & (attention == 0)
    every = (decay == 1) & (window == 0) & (pool == 0)
    last = (decay == 0) & (window == 1) & (pool == 0)
    return bool((unread | every | last).all())
