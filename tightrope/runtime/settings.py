"""An operating point made concrete for one bundle, or a clear error before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tightrope.budget import Keep, OperatingPoint, keep_count
from tightrope.bundle import Manifest, Stage
from tightrope.errors import InputError
from tightrope.plugins.baselines import BASELINES
from tightrope.plugins.slot_attention.policies import DEFAULT_POLICY, find_policy

# Attention is accumulated even while nothing is given up, so that a later turn may set a budget.
_UNBUDGETED = "snapkv"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What one request runs under."""

    point: OperatingPoint
    """The request's point with its defaults filled in."""
    budget: npt.NDArray[np.int64]
    """[L]"""
    evicts: bool
    """Whether slots are given up when the budget is full; else generation ends there."""
    policy: npt.NDArray[np.float32]
    """[8]"""
    sinks: int
    recent: int
    resolution: int | None
    before: tuple[str, Keep] | None
    """Selector before the language model."""
    inside: tuple[str, Keep] | None
    """Schedule inside it."""

    def kept_before(self, available: int) -> int:
        """Tokens of an image of `available` that enter the language model."""
        return available if self.before is None else keep_count(self.before[1], available)

    def kept_inside(self, available: int, entered: int) -> int:
        """Tokens of it that the schedule's last layers see."""
        if self.inside is None:
            return entered
        return min(entered, keep_count(self.inside[1], available))


def resolve(point: OperatingPoint | None, manifest: Manifest) -> Settings:
    """Settings of `point` on the bundle; raises InputError naming what does not fit."""
    if point is None:
        point = OperatingPoint()
    if not isinstance(point, OperatingPoint):
        raise InputError(f"point is {point!r}; accepted: an OperatingPoint, or None")
    resolution = _resolution(point.resolution, manifest)
    before, inside = _selection(point, manifest)
    if resolution is not None and manifest.vision is not None:
        for _, keep in filter(None, (before, inside)):
            keep_count(keep, manifest.vision.tokens(resolution))
    layers = manifest.dims.num_hidden_layers
    budget = _budget(point, manifest)
    if point.kv_budget is None:
        policy, sinks, recent = find_policy(_UNBUDGETED), 0, 1
    else:
        policy = find_policy(DEFAULT_POLICY if point.policy is None else point.policy)
        sinks, recent = policy.protected(int(budget.min()), point.sinks, point.recent)
    chosen = OperatingPoint(
        selector=point.selector,
        keep=point.keep,
        policy=policy.name if point.kv_budget is not None else None,
        kv_budget=point.kv_budget,
        resolution=resolution,
        sinks=sinks if point.kv_budget is not None else None,
        recent=recent if point.kv_budget is not None else None,
    )
    assert budget.shape == (layers,)
    return Settings(
        point=chosen,
        budget=budget,
        evicts=point.kv_budget is not None,
        policy=policy.vector(sinks, recent),
        sinks=sinks,
        recent=recent,
        resolution=resolution,
        before=before,
        inside=inside,
    )


def _budget(point: OperatingPoint, manifest: Manifest) -> npt.NDArray[np.int64]:
    layers = manifest.dims.num_hidden_layers
    wanted = manifest.slots if point.kv_budget is None else point.kv_budget
    values: Sequence[int] = wanted if isinstance(wanted, tuple) else (wanted,) * layers
    if len(values) != layers:
        raise InputError(
            f"kv_budget has {len(values)} values; accepted: one, or one per layer ({layers})"
        )
    if max(values) > manifest.slots:
        raise InputError(
            f"kv_budget is {max(values)}, the bundle has {manifest.slots} slots; "
            "give less, or export with more --slots"
        )
    return np.array(values, np.int64)


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


def _selection(
    point: OperatingPoint, manifest: Manifest
) -> tuple[tuple[str, Keep] | None, tuple[str, Keep] | None]:
    before: tuple[str, Keep] | None = None
    inside: tuple[str, Keep] | None = None
    for name, keep in point.links():
        if manifest.vision is None:
            raise InputError(f"selector is {name!r}, but the bundle sees no images")
        if name in manifest.schedules:
            if inside is not None:
                raise InputError(f"selector {point.selector!r} selects twice inside the model")
            inside = (name, keep)
        elif name in manifest.selectors or name in BASELINES:
            if before is not None or inside is not None:
                raise InputError(
                    f"selector is {point.selector!r}; accepted: one before the language model, "
                    "then one inside it"
                )
            before = (name, keep)
        else:
            known = [*manifest.selectors, *manifest.schedules]
            raise InputError(
                f"selector is {name!r}; the bundle has {', '.join(known) or 'none'}: "
                "export with the selector or schedule you need"
            )
    return before, inside


def stages_of(manifest: Manifest, schedule: str) -> tuple[Stage, ...]:
    """Stages of a schedule that the bundle has."""
    return manifest.schedules[schedule]
