"""A bundle that was opened: its files are there, whole, and what was exported."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tightrope.bundle.manifest import EXPORT_AGAIN, Manifest, read_manifest
from tightrope.checks import check_path
from tightrope.errors import BundleError
from tightrope.foreign import translated
from tightrope.interface.names import GraphName
from tightrope.state import Stamps, read_stamps, write_stamps
from tightrope.typed import stored_arrays

if TYPE_CHECKING:
    from tightrope.arrays import Array


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened, checked bundle."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | os.PathLike[str], verify: bool = False) -> Bundle:
        """The bundle in folder `path`.

        verify: hash every file even if a stamp says that it was hashed before.
        Raises BundleError naming the file and the way out, InputError for what is no path.
        """
        folder = check_path("path", path, "the folder that `tightrope export` wrote")
        manifest = read_manifest(folder)
        with translated(BundleError, f"{folder} cannot be read", "change its permissions"):
            _check_files(folder, manifest, verify)
        return cls(folder, manifest)

    def file(self, name: str) -> Path:
        """Path of one of the bundle's files; raises BundleError if the bundle has none such."""
        if name not in self.manifest.files:
            raise BundleError(f"{self.path} has no {name}; {EXPORT_AGAIN} with what it is for")
        return self.path / name

    @property
    def digest(self) -> str:
        """A hash of the content of all files: equal bundles share it, wherever they lie."""
        lines = (f"{entry.sha256} {name}\n" for name, entry in sorted(self.manifest.files.items()))
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def graph(self, name: GraphName) -> Path:
        """Path of one of the bundle's graphs."""
        return self.file(name.file)

    def read_json(self, name: str) -> dict[str, Any]:
        """One of the bundle's JSON files."""
        text = self.read_text(name)
        with self.damaged(name):
            content = json.loads(text)
        if not isinstance(content, dict):
            raise BundleError(f"{self.path / name} holds no JSON object; {EXPORT_AGAIN}")
        return content

    def read_arrays(self, name: str) -> dict[str, Array]:
        """One of the bundle's .npz files."""
        with self.damaged(name):
            return stored_arrays(self.file(name))

    def read_text(self, name: str) -> str:
        """One of the bundle's texts."""
        with self.damaged(name):
            return self.file(name).read_text(encoding="utf-8")

    def damaged(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Inside, whatever a library raises over the bundle's file `name` is a BundleError."""
        return translated(BundleError, f"{self.path / name} is damaged", EXPORT_AGAIN)


def _check_files(folder: Path, manifest: Manifest, verify: bool) -> None:
    stamps = {} if verify else read_stamps(folder)
    fresh: Stamps = {}
    for name, entry in manifest.files.items():
        file = folder / name
        if not file.is_file():  # nor a folder or a pipe
            raise BundleError(f"{file} is missing; copy the bundle again or {EXPORT_AGAIN}")
        status = file.stat()
        if status.st_size != entry.bytes:
            raise BundleError(
                f"{file} has {status.st_size} bytes, the manifest says {entry.bytes}: "
                f"it is cut short or edited; copy the bundle again or {EXPORT_AGAIN}"
            )
        stamp = [status.st_size, status.st_mtime_ns, status.st_ino, entry.sha256]
        if stamps.get(name) != stamp and sha256_of(file) != entry.sha256:
            raise BundleError(
                f"{file} is not what was exported (its sha256 differs); "
                f"copy the bundle again or {EXPORT_AGAIN}"
            )
        fresh[name] = stamp
    if fresh != stamps:
        write_stamps(folder, fresh)


def sha256_of(file: Path) -> str:
    """Hex digest of a file's content."""
    digest = hashlib.sha256()
    try:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise BundleError(f"{file} cannot be read ({error}); change its permissions") from error
    return digest.hexdigest()
