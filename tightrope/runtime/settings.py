"""An operating point made concrete for one bundle, or a clear error before anything runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tightrope.arrays import Flags, Floats, Indices
from tightrope.bundle import Manifest
from tightrope.checks import check_type, shown
from tightrope.errors import InputError
from tightrope.plugins.slot_attention.policies import (
    DEFAULT_POLICY,
    NEWEST,
    find_policy,
    unbudgeted,
)
from tightrope.point import Link, OperatingPoint, Place, keep_count
from tightrope.runtime.baselines import BASELINES, Baselines
from tightrope.runtime.slots import Slots


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What one request runs under."""

    point: OperatingPoint
    """The request's point with its defaults filled in."""
    kv_budget: Indices
    """[L,Hkv]"""
    gives_up: Flags
    """[L]: whether a layer gives slots up when its budget is full; else generation ends there."""
    policy: Floats
    """[L,8]"""
    resolution: int | None
    most_tokens: int = 0
    """Visual tokens of the largest image at this resolution."""
    positions: int = sys.maxsize
    """Tokens of a conversation that the model can tell apart by their places."""
    links: tuple[Link, ...] = ()
    """The selector's chain, in the order in which it acts."""

    @property
    def evicts(self) -> bool:
        """Whether slots are given up wherever a budget is full, so that nothing ends there."""
        return bool(self.gives_up.all())

    @property
    def read_as(self) -> tuple[object, ...]:
        """How images are read: slots that hold one are known by it."""
        return (self.resolution, *self.links)

    def room(self, slots: Slots, ordinal: int) -> int:
        """Tokens from `ordinal` on for which each layer has a slot or gives one up."""
        most = np.where(self.gives_up[:, None], sys.maxsize, self.kv_budget)
        return min(slots.room(most), self.positions - ordinal)

    def link(self, place: Place) -> Link | None:
        """What selects at `place`, if anything does."""
        return next((link for link in self.links if link.place == place), None)

    def kept(self, place: Place, available: int, entered: int) -> int:
        """Tokens of an image of `available` that are left at `place`, of those that `entered`."""
        link = self.link(place)
        if link is None:
            return entered
        return min(entered, keep_count(link.keep, available, self.most_tokens))


def resolve(
    point: OperatingPoint | None, manifest: Manifest, baselines: Baselines = BASELINES
) -> Settings:
    """Settings of `point` on the bundle; raises InputError naming what does not fit.

    baselines: what the host selects by without a graph.
    """
    if point is None:
        point = OperatingPoint()
    check_type("point", point, OperatingPoint, "an OperatingPoint, or None")
    resolution = _resolution(point.resolution, manifest)
    links = _links(point, manifest, baselines)
    most_tokens = 0
    if resolution is not None and (tower := manifest.tower) is not None:
        most_tokens = tower.most_tokens(resolution)
        for link in links:
            keep_count(link.keep, most_tokens)
    chosen, kv_budget = replace(point, resolution=resolution), _kv_budget(point, manifest)
    policy = unbudgeted(len(kv_budget))
    if point.kv_budget is not None:
        chooses = find_policy(DEFAULT_POLICY if point.policy is None else point.policy)
        sinks, recent = chooses.protected(int(kv_budget.min()), point.sinks, point.recent)
        policy = np.tile(chooses.vector(sinks, recent), (len(kv_budget), 1))
        chosen = replace(chosen, policy=chooses.name, sinks=sinks, recent=recent)
    gives_up = np.full(len(kv_budget), point.kv_budget is not None)
    for layer, window in enumerate(manifest.windows):
        if window:  # what has left it is never seen again
            gives_up[layer] |= window <= manifest.slots
            kv_budget[layer] = np.minimum(kv_budget[layer], window)
            policy[layer] = NEWEST
    return Settings(
        point=chosen,
        kv_budget=kv_budget,
        gives_up=gives_up,
        policy=policy,
        resolution=resolution,
        most_tokens=most_tokens,
        positions=manifest.max_positions or sys.maxsize,
        links=links,
    )


def _kv_budget(point: OperatingPoint, manifest: Manifest) -> Indices:
    """[L,Hkv]: heads of a layer share one number at the surface."""
    layers = manifest.dims.num_hidden_layers
    wanted = manifest.slots if point.kv_budget is None else point.kv_budget
    values: Sequence[int] = wanted if isinstance(wanted, tuple) else (wanted,) * layers
    if len(values) != layers:
        raise InputError(
            f"kv_budget has {len(values)} values; accepted: one, or one per layer ({layers})"
        )
    if max(values) > manifest.slots:
        raise InputError(
            f"kv_budget is {shown(max(values))}, the bundle has {manifest.slots} slots; "
            "give less, or export with more --slots"
        )
    return np.repeat(np.array(values, np.int64)[:, None], manifest.dims.num_key_value_heads, 1)


def _resolution(wanted: int | None, manifest: Manifest) -> int | None:
    if manifest.vision is None:
        if wanted is not None:
            raise InputError(f"resolution is {wanted}, but the bundle sees no images")
        return None
    listed = manifest.vision.resolutions
    if wanted is not None and wanted not in listed:
        raise InputError(
            f"resolution is {wanted}; the bundle was made for {', '.join(map(str, listed))}"
        )
    return wanted or listed[0]


def _links(point: OperatingPoint, manifest: Manifest, baselines: Baselines) -> tuple[Link, ...]:
    links: list[Link] = []
    for name, keep in point.links():
        if manifest.vision is None:
            raise InputError(f"selector is {shown(name)}, but the bundle sees no images")
        place: Place = "inside" if name in manifest.schedules else "tower"
        if place == "tower" and name not in manifest.selectors and name not in baselines:
            known = [*manifest.selectors, *baselines, *manifest.schedules]
            raise InputError(
                f"selector is {shown(name)}; the bundle has {', '.join(known)}: "
                "export with the selector or schedule you need"
            )
        before = [link.place for link in links]
        if place == "inside" and place in before:
            raise InputError(f"selector {shown(point.selector)} selects twice inside the model")
        if place == "tower" and before:
            raise InputError(
                f"selector is {shown(point.selector)}; accepted: one before the language "
                "model, then one inside it"
            )
        links.append(Link(name, keep, place))
    return tuple(links)
