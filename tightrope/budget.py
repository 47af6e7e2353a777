"""Frozen values that say what one request may cost: the operating point."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tightrope.errors import InputError

Keep = int | str


def keep_count(keep: Keep, available: int) -> int:
    """How many of `available` visual tokens `keep` names: a count, or a percentage such as "25%".

    A percentage rounds up, so that no image is left without a token.
    Raises InputError for anything else, for 0 and for a count above `available`.
    """
    accepted = f'a count in 1..{available} or a percentage such as "25%"'
    if isinstance(keep, bool) or not isinstance(keep, (int, str)):
        raise InputError(f"keep is {keep!r}; accepted: {accepted}")
    if isinstance(keep, str) and keep.strip().endswith("%"):
        try:
            share = float(keep.strip()[:-1])
        except ValueError:
            raise InputError(f"keep is {keep!r}; accepted: {accepted}") from None
        if not math.isfinite(share) or not 0 < share <= 100:
            raise InputError(f"keep is {keep!r}; a percentage lies above 0% and up to 100%")
        return max(1, math.ceil(available * share / 100))
    try:
        count = int(keep)
    except ValueError:
        raise InputError(f"keep is {keep!r}; accepted: {accepted}") from None
    if not 1 <= count <= available:
        raise InputError(f"keep is {count}; accepted: {accepted}")
    return count


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoint:
    """What one request spends: the values that a plan chooses and that an answer reports.

    Every field left at None means "spend no less than everything": no pruning, no eviction,
    the bundle's own resolution.
    """

    selector: str | None = None
    """Which visual tokens the language model sees: a method's name, or a chain `before+inside`."""
    keep: Keep | tuple[Keep, ...] | None = None
    """Visual tokens kept of each image: a count or "25%"; one value per link of a chain."""
    policy: str | None = None
    """Which slots are given up when the budget is full; `snapkv` where a budget is set."""
    kv_budget: int | tuple[int, ...] | None = None
    """Occupied slots per layer and KV head at most; one value, or one per layer."""
    resolution: int | None = None
    """Side of the square image in pixels; one of those that the bundle lists."""
    sinks: int | None = None
    """First tokens that no policy gives up; None takes the policy's default."""
    recent: int | None = None
    """Newest tokens that no policy gives up; None takes the policy's default."""

    def __post_init__(self) -> None:
        if self.keep is not None and self.selector is None:
            raise InputError(f"keep is {self.keep!r} but no selector is named; name one")
        if self.selector is not None and self.keep is None:
            raise InputError(f"selector {self.selector!r} needs keep: how many tokens it leaves")
        links = len(self.selector.split("+")) if self.selector else 0
        if isinstance(self.keep, tuple) and len(self.keep) != links:
            raise InputError(
                f"keep has {len(self.keep)} values for the {links} links of {self.selector!r}; "
                "give one value per link, or one for all"
            )
        for value in self.keep if isinstance(self.keep, tuple) else (self.keep,):
            if value is not None:
                keep_count(value, 2**31)
        if self.policy is not None and self.kv_budget is None:
            raise InputError(f"policy {self.policy!r} needs kv_budget: how many slots it may fill")
        budgets = self.kv_budget if isinstance(self.kv_budget, tuple) else (self.kv_budget,)
        for budget in budgets:
            if budget is not None and (isinstance(budget, bool) or budget < 1):
                raise InputError(f"kv_budget is {budget!r}; accepted: slots per layer, 1 or more")
        if self.sinks is not None and self.sinks < 0:
            raise InputError(f"sinks is {self.sinks}; accepted: 0 or more")
        if self.recent is not None and self.recent < 1:
            raise InputError(f"recent is {self.recent}; accepted: 1 or more")

    def links(self) -> tuple[tuple[str, Keep], ...]:
        """The selector's chain as (method, keep) pairs, in the order in which they act."""
        if self.selector is None or self.keep is None:
            return ()
        names = self.selector.split("+")
        keeps = self.keep if isinstance(self.keep, tuple) else (self.keep,) * len(names)
        return tuple(zip(names, keeps, strict=True))
