"""Small files that a kernel writes: they may not be there, and may vanish between two looks."""

from __future__ import annotations

import os
from pathlib import Path

_LONGEST_NUMBER = 64


def text_of(path: Path) -> str | None:
    """The file's text, whatever its bytes; None where it is not there or cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def line_of(path: Path) -> str | None:
    """The file's text without the ends of lines and strings around it."""
    text = text_of(path)
    return None if text is None else text.strip("\0\n ")


def number_of(path: str | Path) -> int | None:
    """The whole number that the file is; None where there is none.

    Asked twenty times a second: opened anew each time, since what is open outlives its device.
    """
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        return int(os.read(file, _LONGEST_NUMBER))
    except (OSError, ValueError):
        return None
    finally:
        os.close(file)
