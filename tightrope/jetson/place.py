"""What measurements are filed under: the name of the board and of its power mode."""

from __future__ import annotations

from pathlib import Path

from tightrope.jetson.probe import ROOT, read_board, read_machine

NO_POWER_MODE = "none"


def board_and_mode(root: Path = ROOT) -> tuple[str, str]:
    """A Jetson's module and nvpmodel mode; another machine's processor and "none"."""
    board = read_board(root)
    if board is None:
        return read_machine(root).cpu, NO_POWER_MODE
    name = board.module.name if board.module else board.module_id or board.model
    return name, board.power_mode.name if board.power_mode else "unknown"
