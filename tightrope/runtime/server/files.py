"""Files that requests may name: those below one folder, reached without following a link."""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath
from urllib.parse import SplitResult, unquote, urlsplit

from tightrope.errors import InputError


class Folder:
    """A folder whose files may be read, and nothing else."""

    def __init__(self, root: Path) -> None:
        self._roots = (PurePosixPath(os.path.abspath(root)), PurePosixPath(root.resolve()))

    def read(self, name: str, url: str, most_bytes: int) -> bytes:
        """Content of the file at a file: address.

        name: of the field that gave it. Raises InputError, in the same words whether the file is
        outside, missing, closed, no file or too long: nobody learns what else there is.
        """
        try:
            return self._content(urlsplit(url), most_bytes)
        except (OSError, ValueError):
            raise InputError(
                f"{name} is no file that may be read here; accepted: file:// and the path of an "
                f"image of at most {most_bytes} bytes below the folder that the server was started "
                "with, without links on the way"
            ) from None

    def _content(self, url: SplitResult, most_bytes: int) -> bytes:
        path = PurePosixPath(unquote(url.path))
        if url.netloc not in ("", "localhost") or url.query or url.fragment:
            raise ValueError
        root = next(root for root in (*self._roots, None) if root is None or _below(path, root))
        if root is None:
            raise ValueError
        with open(_opened(root, path.relative_to(root).parts), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ValueError
            content = file.read(most_bytes + 1)
        if len(content) > most_bytes:
            raise ValueError
        return content


def _below(path: PurePosixPath, root: PurePosixPath) -> bool:
    return path.is_relative_to(root) and path != root and ".." not in path.parts


def _opened(root: PurePosixPath, parts: tuple[str, ...]) -> int:
    """A descriptor of the file, each step opened from the one before: nothing can be swapped."""
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    for part in parts[:-1]:
        before = folder
        try:
            folder = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=before)
        finally:
            os.close(before)
    try:
        # A pipe would block whoever opens it.
        return os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    finally:
        os.close(folder)
