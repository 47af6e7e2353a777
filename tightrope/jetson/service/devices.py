"""What a service on a board has to open: GPU devices, and the groups that may.

Listed when the service is installed, since names differ from release to release.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tightrope.jetson.probe import ROOT

GROUPS = ("video", "render")
"""Who may open a Jetson's GPU: video its own nodes, render the ones of DRM."""
_NODES = ("nvhost*", "nvmap", "nvgpu/*/*", "nvidia*", "nvsciipc", "dri/render*")


def gpu_devices(root: Path = ROOT) -> tuple[str, ...]:
    """The nodes in /dev that belong to a GPU, as /dev/..., in order."""
    found: Iterable[Path] = (node for name in _NODES for node in (root / "dev").glob(name))
    nodes = {node for node in found if not node.is_dir()}
    return tuple(sorted(f"/{node.relative_to(root)}" for node in nodes))


def gpu_groups(root: Path = ROOT) -> tuple[str, ...]:
    """Those of the groups that this system has: a unit with another one would not start."""
    try:
        lines = (root / "etc/group").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ()
    known = {line.partition(":")[0] for line in lines}
    return tuple(group for group in GROUPS if group in known)
