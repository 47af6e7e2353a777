"""Towers by the kind that a bundle names: one kind, one file, one entry."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tightrope.inputs.prepare.anyres import AnyresTower
from tightrope.inputs.prepare.clip import ClipTower
from tightrope.inputs.prepare.idefics import IdeficsTower
from tightrope.inputs.prepare.internvl import InternvlTower
from tightrope.inputs.prepare.qwen_vl import QwenTower
from tightrope.inputs.prepare.tower import Prepare, Tower
from tightrope.inputs.vision import VisionInfo

TOWERS: dict[str, Callable[[VisionInfo], Tower]] = {
    "clip": ClipTower,
    "siglip": partial(ClipTower, leading=0),
    "gemma3": partial(ClipTower, leading=0, pools=True),
    "qwen_vl": QwenTower,
    "anyres": AnyresTower,
    "idefics": IdeficsTower,
    "internvl": InternvlTower,
}


def create_tower(info: VisionInfo) -> Tower:
    """The tower that `info` describes; raises ValueError for a kind or sizes that are not known."""
    if info.kind not in TOWERS:
        raise ValueError(
            f"the vision tower is of kind {info.kind!r}, this version knows: {', '.join(TOWERS)}"
        )
    most = info.sizes.get("temporal_patch_size", 1)
    if not 1 <= info.together <= most:
        raise ValueError(f"{info.together} frames are read together, the tower takes {most}")
    return TOWERS[info.kind](info)


__all__ = ["Prepare", "Tower", "VisionInfo", "create_tower"]
