"""What is learnt about a bundle on this machine, in a folder of its own: the bundle never changes.

NAME.state/
  stamp.json      size, mtime and inode of each file when it was last hashed
  sessions/       graphs as ONNX Runtime made them, see `tightrope.runtime.backends.optimised`
  profile.lock    held while something is measured
  latency/        what requests cost on one board, see `tightrope.latency_file`
  engines/        TensorRT engines that were built here, see `runtime.backends.tensorrt.cache`
  kernels/        kernels of own ops that were built for this bundle, see `plugins.kernels.homes`
  selftest.json   what the self-test after the last build of engines found
  points/         what operating points cost there, see `tightrope.profiles.latency.measured`
  quality/        what operating points are worth, see `tightrope.quality_file`
  live.sqlite     what requests really took, see `tightrope.live_file`
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tightrope.errors import InputError

STAMP = "stamp.json"
LOCK = "profile.lock"
Stamps = dict[str, list[Any]]


def task_stem(name: str, digest: str) -> str:
    """What a file about a task is called, for `name` of any length and the task's digest."""
    return f"{file_slug(name)[:64] or 'task'}-{digest[:12]}"


def file_slug(text: str) -> str:
    """`text` as part of a file's name: small letters, digits and dots; "" of none of them."""
    return re.sub(r"[^a-z0-9.]+", "_", text.lower()).strip("_.")


def state_folder(bundle: Path) -> Path:
    """Where the state of the bundle in folder `bundle` is kept.

    TIGHTROPE_STATE if set, else NAME.state beside the bundle, else (where that folder cannot be
    written) a folder in XDG_STATE_HOME.
    """
    if chosen := os.environ.get("TIGHTROPE_STATE"):
        return Path(chosen)
    bundle = bundle.resolve()
    if os.access(bundle.parent, os.W_OK):
        return bundle.with_suffix(".state")
    home = Path(os.environ.get("HOME") or tempfile.gettempdir())  # a service may have no home
    state = Path(os.environ.get("XDG_STATE_HOME") or home / ".local" / "state")
    return state / "tightrope" / hashlib.sha256(str(bundle).encode()).hexdigest()[:16]


def read_stamps(bundle: Path) -> Stamps:
    """Stamps of the bundle's files; empty where there is no stamp or a damaged one."""
    try:
        stamps = json.loads((state_folder(bundle) / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamps if isinstance(stamps, dict) else {}


def write_stamps(bundle: Path, stamps: Stamps) -> None:
    """Best effort: on a read-only system every opening hashes again."""
    with contextlib.suppress(OSError):
        write_whole(state_folder(bundle) / STAMP, json.dumps(stamps))


def write_whole(file: Path, content: str | bytes) -> None:
    """Write `file` whole or not at all, its folder too; raises OSError where it cannot be."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    except OSError:
        # A read-only system refuses this as well, even where there is nothing to remove.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def set_aside(file: Path) -> Path | None:
    """Rename a damaged `file` to a name that is free; None where it cannot be renamed."""
    number = 1
    while (aside := file.with_name(f"{file.name}.damaged-{number}")).exists():
        number += 1
    try:
        return file.rename(aside)
    except OSError:
        return None


@contextlib.contextmanager
def held(bundle: Path) -> Iterator[None]:
    """The bundle's state folder, to this process alone, for what two must not measure at once.

    Raises InputError naming the process that holds it, or the folder that cannot be written.
    """
    file = state_folder(bundle) / LOCK
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        stream = file.open("a+", encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{file.parent} cannot be written ({error}); name another folder in TIGHTROPE_STATE"
        ) from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            stream.seek(0)
            raise InputError(
                f"{file.parent} is being measured by process {stream.read().strip() or 'unknown'}; "
                "wait for it, or end it"
            ) from error
        stream.truncate(0)
        stream.write(str(os.getpid()))
        stream.flush()
        yield  # the lock goes with the stream
