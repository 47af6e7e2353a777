"""Files that are code, such as engines: read only where nobody else can have put them.

A file counts if this process's user or root owns it and nobody else may write to it, nor to any
folder that leads to it. Each folder is opened below the last one and no link is followed, so that
what was checked is what is read; the file is opened once, and what it had then is what is used.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tightrope.errors import BackendError
from tightrope.state import write_whole

_OURS = 0o700
"""Of a folder that is made here."""


def read_trusted(folder: Path, name: str) -> bytes:
    """What file `name` of `folder` holds.

    Raises BackendError that says why it is not trusted and what makes it so, and FileNotFoundError.
    """
    path = folder / name
    with _opened(folder) as parent:
        try:
            # A pipe would wait for whoever writes to it.
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=parent)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _unreadable(path, error) from error
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise BackendError(f"{path} is no file; {_REMOVE}")
            _check(path, status)
            with open(file, "rb", closefd=False) as stream:
                return stream.read()
        finally:
            os.close(file)


def names_in(folder: Path) -> list[str]:
    """Names of the entries of a folder; none where it is not there. Raises as `read_trusted`."""
    try:
        with _opened(folder) as parent:
            # Through the descriptor, so that it is the folder that was checked.
            return sorted(os.listdir(f"/proc/self/fd/{parent}"))
    except FileNotFoundError:
        return []


def write_trusted(folder: Path, name: str, content: bytes) -> None:
    """Write a file that `read_trusted` takes, whole or not at all; raises BackendError."""
    try:
        made = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        if made:
            folder.chmod(_OURS)
        with _opened(folder):
            write_whole(folder / name, content)
            (folder / name).chmod(0o600)
    except OSError as error:
        raise BackendError(
            f"{folder / name} cannot be written ({error}); name another folder in TIGHTROPE_STATE"
        ) from error


_REMOVE = "an engine is code: remove it, and run `tightrope build` again"


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    """A descriptor of `folder`, once it and all folders above it are known to be nobody else's."""
    # Links above the state folder are the administrator's: they are resolved here, once.
    place = Path(os.path.realpath(folder.parent))
    with ExitStack() as held:
        path, parent = Path("/"), os.open("/", os.O_PATH | os.O_DIRECTORY)
        held.callback(os.close, parent)
        for name in (*place.parts[1:], folder.name):
            path = path / name
            try:
                flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW
                parent = os.open(name, flags, dir_fd=parent)
            except FileNotFoundError:
                raise
            except OSError as error:
                raise _unreadable(path, error) from error
            held.callback(os.close, parent)
            _check(path, os.fstat(parent))
        yield parent


def _unreadable(path: Path, error: OSError) -> BackendError:
    if path.is_symlink():
        return BackendError(f"{path} is a link to {os.readlink(path)}; {_REMOVE}")
    return BackendError(f"{path} cannot be opened ({error}); {_REMOVE}")


def _check(path: Path, status: os.stat_result) -> None:
    """Raises BackendError where another user could change what lies at `path`."""
    user = os.geteuid()
    if status.st_uid not in (0, user):
        raise BackendError(
            f"{path} belongs to the user {_user(status.st_uid)}, neither to {_user(user)} nor to "
            f"root; {_REMOVE}"
        )
    mode = stat.S_IMODE(status.st_mode)
    # In a sticky folder, as that of temporary files, nobody renames or removes what is another's.
    if stat.S_ISDIR(status.st_mode) and mode & stat.S_ISVTX:
        return
    by_group = mode & stat.S_IWGRP and _shared(status.st_gid, status.st_uid)
    if mode & stat.S_IWOTH or by_group:
        raise BackendError(
            f"{path} may be written by others (mode {mode:o}), and an engine there would be "
            f"theirs to choose; run: chmod go-w {path}"
        )


def _shared(group: int, owner: int) -> bool:
    """Whether anybody but the owner and root is in a group; most users have one to themselves."""
    try:
        members = {pwd.getpwnam(name).pw_uid for name in grp.getgrgid(group).gr_mem}
    except KeyError:
        return True
    members |= {entry.pw_uid for entry in pwd.getpwall() if entry.pw_gid == group}
    return bool(members - {0, owner})


def _user(number: int) -> str:
    try:
        return f"{pwd.getpwuid(number).pw_name} ({number})"
    except KeyError:
        return str(number)
