"""SQLite files of what was measured: opened to read, and what is said of one that cannot be."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from tightrope.errors import ProfileError
from tightrope.state import set_aside

_NO_DAMAGE = (
    *("locked", "busy", "unable to open", "readonly", "read-only"),
    *("disk i/o error", "permission", "full"),
)


@contextlib.contextmanager
def reading(file: Path) -> Iterator[sqlite3.Connection]:
    """The file to read; nothing is written beside it.

    What a killed process left half-written beside it is taken back first, which needs to write.
    """
    mode = "rw" if journal_of(file).exists() else "ro"
    where = f"{file.absolute().as_uri()}?mode={mode}"
    with contextlib.closing(sqlite3.connect(where, uri=True)) as database:
        yield database


def journal_of(file: Path) -> Path:
    """What SQLite writes beside a file before it changes it."""
    return file.with_name(f"{file.name}-journal")


def is_damage(error: BaseException) -> bool:
    """Whether an error of reading says that the file is damaged, not that it is out of reach."""
    words = str(error).lower()
    out_of_reach = isinstance(error, sqlite3.OperationalError) and any(
        word in words for word in _NO_DAMAGE
    )
    return not out_of_reach


def unreadable(file: Path, error: BaseException, way_out: str) -> ProfileError:
    """What is raised for a file that cannot be read; one that is damaged is moved aside.

    way_out: what to do about a damaged one.
    """
    if not is_damage(error):
        return ProfileError(f"{file} cannot be read ({error}); try again, or check its permissions")
    aside = set_aside(file)
    if aside is None:
        where = "could not be moved aside"
    else:
        where = f"was moved to {aside.name}"
        if journal_of(file).exists():  # it must not be taken back into the file that comes next
            set_aside(journal_of(file))
    return ProfileError(f"{file} is damaged ({error}) and {where}; {way_out}")
