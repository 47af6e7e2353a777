"""Places that a user names: looked at with care, and folders written whole or not at all."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tightrope.checks import check_path, shown
from tightrope.errors import InputError, TightropeError
from tightrope.foreign import translated


@contextlib.contextmanager
def reaching(name: str, path: Path) -> Iterator[None]:
    """Inside, `path` is looked at; whatever the system has against that is an InputError."""
    check_path(name, path, "the path of a file or folder")
    what = f"{name} {shown(str(path))} cannot be reached"
    with translated(InputError, what, "change its permissions, or choose another place"):
        yield


@contextlib.contextmanager
def finished_folder(target: Path, failure: type[TightropeError]) -> Iterator[Path]:
    """A folder beside `target` that takes its place on success and vanishes otherwise.

    Raises InputError where none can be made, and `failure` where the disk takes no more.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except (OSError, ValueError) as error:
        raise InputError(f"{target} cannot be written ({error}); choose another place") from error
    try:
        folder.chmod(0o755)
        yield folder
        if target.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
            target.rename(old / target.name)
            folder.rename(target)
            shutil.rmtree(old)
        else:
            folder.rename(target)
    except OSError as error:
        raise failure(f"{target} was not written ({error}); nothing is left of it") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
