"""Frozen values that say what one request may cost: the operating point."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from tightrope.checks import check_type, check_whole, shown
from tightrope.configs import setting
from tightrope.errors import InputError

Keep = int | str
Place = Literal["frames", "tower", "inside"]
"""Where a selector acts: among frames, between tower and language model, or inside the latter."""


@dataclass(frozen=True, slots=True)
class Link:
    """One method of a selector's chain."""

    method: str
    keep: Keep
    place: Place


def keep_count(keep: Keep, available: int, most: int | None = None) -> int:
    """How many of `available` visual tokens `keep` names: a count, or a percentage such as "25%".

    A percentage rounds up, so that no image is left without a token. A count is all of an image
    that has fewer. most: tokens of the largest image there may be; None: this is it.
    Raises InputError for anything else, for 0 and for a count above `most`.
    """
    check_keep(keep)
    if isinstance(keep, str) and keep.strip().endswith("%"):
        return max(1, math.ceil(available * float(keep.strip()[:-1]) / 100))
    most = available if most is None else most
    if int(keep) > most:
        raise InputError(f"keep is {shown(keep)}; an image has {most} tokens here: keep fewer")
    return min(int(keep), available)


def check_keep(keep: Keep) -> None:
    """Raises InputError for a `keep` that is wrong however many tokens there are."""
    accepted = 'a count, 1 or more, or a percentage such as "25%"'
    if isinstance(keep, bool) or not isinstance(keep, (int, str)):
        raise InputError(f"keep is {shown(keep)}; accepted: {accepted}")
    try:
        text = str(keep).strip()
        share, count = (float(text[:-1]), 1) if text.endswith("%") else (100.0, int(text))
    except ValueError:
        raise InputError(f"keep is {shown(keep)}; accepted: {accepted}") from None
    if not 0 < share <= 100:  # nor is a NaN
        raise InputError(f"keep is {shown(keep)}; a percentage lies above 0% and up to 100%")
    if count < 1:
        raise InputError(f"keep is {shown(keep)}; accepted: {accepted}")


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoint:
    """What one request spends: the values that a plan chooses and that an answer reports.

    Every field left at None means "spend no less than everything": no pruning, no eviction,
    the bundle's own resolution.
    """

    selector: str | None = setting(
        None, "Method that picks the visual tokens, or a chain before+inside; needs --keep."
    )
    keep: Keep | tuple[Keep, ...] | None = setting(
        None, "Visual tokens kept of each image: 64, 25%, or one a link."
    )
    policy: str | None = setting(None, "Which slots are given up when --kv-budget is full.")
    """`snapkv` where a budget is set."""
    kv_budget: int | tuple[int, ...] | None = setting(
        None, "Occupied slots per layer and KV head at most."
    )
    """One value, or one per layer."""
    resolution: int | None = setting(None, "Side of the image; one that the bundle has.")
    """In pixels."""
    sinks: int | None = setting(None, "First tokens that no policy gives up.")
    """None takes the policy's default."""
    recent: int | None = setting(None, "Newest tokens that no policy gives up.")
    """None takes the policy's default."""
    thinking_tokens: int | None = setting(
        None, "Longest thought before the answer: it is closed there; 0 answers at once."
    )
    """Counted without the tokens that open and close it. None leaves it to the model."""

    def __post_init__(self) -> None:
        self._check_selection()
        self._check_budget()
        if self.resolution is not None:
            check_whole("resolution", self.resolution, least=1, unit="whole pixels")
        if self.thinking_tokens is not None:
            check_whole("thinking_tokens", self.thinking_tokens, least=0, unit="whole tokens")

    def _check_selection(self) -> None:
        if self.selector is not None:
            check_type("selector", self.selector, str, "a name, or before+inside")
        if self.keep is not None and self.selector is None:
            raise InputError(f"keep is {shown(self.keep)} but no selector is named; name one")
        if self.selector is None:
            return
        if self.keep is None:
            raise InputError(
                f"selector {shown(self.selector)} needs keep: how many tokens it leaves"
            )
        links = len(self.selector.split("+"))
        if isinstance(self.keep, tuple) and len(self.keep) != links:
            raise InputError(
                f"keep has {len(self.keep)} values for the {links} links of "
                f"{shown(self.selector)}; give one value per link, or one for all"
            )
        for value in self.keep if isinstance(self.keep, tuple) else (self.keep,):
            check_keep(value)

    def _check_budget(self) -> None:
        if self.policy is not None:
            check_type("policy", self.policy, str, "a policy's name")
        if self.kv_budget is None:
            for name in ("policy", "sinks", "recent"):
                if (value := getattr(self, name)) is not None:
                    raise InputError(
                        f"{name} is {shown(value)} but kv_budget is not set: how many slots may "
                        "be full"
                    )
            return
        budgets = self.kv_budget if isinstance(self.kv_budget, tuple) else (self.kv_budget,)
        for budget in budgets:
            unit = "whole slots, or a tuple with one per layer"
            check_whole("kv_budget", budget, least=1, unit=unit)
        if self.sinks is not None:
            check_whole("sinks", self.sinks, least=0, unit="whole tokens")
        if self.recent is not None:
            check_whole("recent", self.recent, least=1, unit="whole tokens")

    def links(self) -> tuple[tuple[str, Keep], ...]:
        """The selector's chain as (method, keep) pairs, in the order in which they act."""
        if self.selector is None or self.keep is None:
            return ()
        names = self.selector.split("+")
        keeps = self.keep if isinstance(self.keep, tuple) else (self.keep,) * len(names)
        return tuple(zip(names, keeps, strict=True))


def in_words(point: OperatingPoint) -> str:
    """What a point spends, for people: "336 px, flashvlm 25%, 256 slots by snapkv"."""
    words = []
    if point.resolution is not None:
        words.append(f"{point.resolution} px")
    words += [f"{method} {keep}" for method, keep in point.links()]
    if point.kv_budget is not None:
        budgets = point.kv_budget if isinstance(point.kv_budget, tuple) else (point.kv_budget,)
        by = "" if point.policy is None else f" by {point.policy}"
        words.append(f"{'/'.join(map(str, budgets))} slots{by}")
    kept = {"sinks": point.sinks, "recent": point.recent}
    words += [f"{count} {name}" for name, count in kept.items() if count is not None]
    if point.thinking_tokens is not None:
        thought = f"thoughts of {point.thinking_tokens}" if point.thinking_tokens else "no thoughts"
        words.append(thought)
    return ", ".join(words) or "everything"
