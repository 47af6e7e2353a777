"""Whether this user may open the GPU: which of the groups that own its devices it is in."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from tightrope.jetson.files import text_of

GPU_GROUPS = ("video", "render")
"""That own a Jetson's /dev/nv* and /dev/dri."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Groups of the running process, as far as the GPU asks for them."""

    is_root: bool
    has: tuple[str, ...]
    lacks: tuple[str, ...]
    """Empty for root, who may open everything."""


def read_access(
    root: Path, uid: int | None = None, group_ids: Collection[int] | None = None
) -> Access:
    """Those of GPU_GROUPS that exist under `root`; uid, group_ids: None is this process."""
    uid = os.geteuid() if uid is None else uid
    own = {os.getegid(), *os.getgroups()} if group_ids is None else set(group_ids)
    ids = {}
    for line in (text_of(root / "etc/group") or "").splitlines():
        name, *rest = line.split(":")
        if name in GPU_GROUPS and len(rest) >= 2 and rest[1].isdecimal():
            ids[name] = int(rest[1])
    has = tuple(name for name in GPU_GROUPS if ids.get(name) in own)
    lacks = tuple(name for name in GPU_GROUPS if name in ids and name not in has)
    return Access(is_root=uid == 0, has=has, lacks=() if uid == 0 else lacks)
