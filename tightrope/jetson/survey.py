"""All that is looked at of a machine before it is told what is wrong with it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from tightrope.jetson.access import Access, read_access
from tightrope.jetson.clocks import Clocks, read_clocks
from tightrope.jetson.files import text_of
from tightrope.jetson.probe import ROOT, Board, Machine, read_board, read_machine
from tightrope.jetson.sensors import Look, look, sensors_of
from tightrope.jetson.software import Software, read_software

ORIN_TPCS = 8
"""Of a module that no table knows."""
_CONTAINERS = (".dockerenv", "run/.containerenv")


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """A machine as it is now; board, clocks and access are None where it is no Jetson."""

    machine: Machine
    board: Board | None
    clocks: Clocks | None
    software: Software | None
    access: Access | None
    sensors: Look
    """What they read now."""
    in_container: bool
    has_desktop: bool
    """Whether the system starts one."""


def survey(
    root: Path = ROOT, uid: int | None = None, group_ids: Collection[int] | None = None
) -> Survey:
    """The machine under `root`; uid, group_ids: whose rights count, None is this process's."""
    board = read_board(root)
    tpcs = ORIN_TPCS if board is None or board.module is None else board.module.num_tpcs
    return Survey(
        machine=read_machine(root),
        board=board,
        clocks=None if board is None else read_clocks(root, tpcs),
        software=None if board is None else read_software(root),
        access=None if board is None else read_access(root, uid, group_ids),
        sensors=look(sensors_of(root)),
        in_container=any((root / path).exists() for path in _CONTAINERS),
        has_desktop="graphical.target" in _default_target(root),
    )


def _default_target(root: Path) -> str:
    """The name of what systemd starts, which is a link."""
    link = root / "etc/systemd/system/default.target"
    try:
        return link.readlink().name
    except OSError:
        return (text_of(link) or "").strip()
