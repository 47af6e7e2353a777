"""The bundle: a folder that export writes once and everything else reads.

    NAME.bundle/
      bundle.json             the manifest below: format, dims, what the graphs were made for,
                              every other file with its bytes and sha256
      graphs/*.onnx           host.*: ONNX Runtime on a CPU; standard.*: standard operators only
      graphs/weights.data     one external-data file for all graphs
      embeddings.data         [vocab, hidden] float16 or float32, gathered by the host
      positions.npz           the tower's position table for each resolution
      tokenizer.json  chat_template.jinja  preprocessor.json  generation.json

Opening checks the format, each file's size and its hash before anything is allocated. Hashing
is remembered in a stamp (size, mtime, inode) in the state folder beside the bundle.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from tightrope.errors import BundleError
from tightrope.interface import Dims

FORMAT = 1
MANIFEST = "bundle.json"
_EXPORT_AGAIN = "export the checkpoint again"


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionInfo:
    """What the host must know of the vision tower."""

    image_token_id: int
    image_token: str
    patch_size: int
    hidden_size: int
    head_dim: int
    resolutions: tuple[int, ...]
    """Sides in pixels, the tower's own first."""
    signals: tuple[str, ...]

    def tokens(self, resolution: int) -> int:
        """Visual tokens of one image at `resolution`."""
        return (resolution // self.patch_size) ** 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One selection inside the language model: `method` acts on the input of `layer`."""

    method: str
    layer: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything in bundle.json."""

    format: int
    family: str
    dims: Dims
    positions: str
    """How rotary positions follow from ordinals; "ordinal": they are the same."""
    opset_version: int
    precision: str
    activations: str
    """Element type of the standard graphs' floats: float16 or float32."""
    embeddings: str
    """Element type of embeddings.data."""
    slots: int
    prefill_chunk: int
    standard_prefill: bool
    """Whether slots + prefill_chunk is small enough for TensorRT's TopK."""
    minimum_onnxruntime: str
    vision: VisionInfo | None = None
    selectors: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Name -> its graph's signals and whether the question guides it."""
    schedules: dict[str, tuple[Stage, ...]] = field(default_factory=dict)
    standard_ops: dict[str, dict[str, str]] = field(default_factory=dict)
    """Per standard graph: operator -> one node of that type."""
    exporter: dict[str, str] = field(default_factory=dict)
    seed: int = 0
    source: dict[str, str] = field(default_factory=dict)
    parity: dict[str, Any] = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The manifest as JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Manifest:
        """The manifest that `to_dict` wrote; raises TypeError or KeyError for anything else."""
        known = {item.name for item in fields(cls)}
        unknown = set(values) - known
        if unknown:
            raise KeyError(f"unknown entries {sorted(unknown)}")
        parts = dict(values)
        parts["dims"] = Dims(**values["dims"])
        if values["vision"] is not None:
            vision = dict(values["vision"])
            for name in ("resolutions", "signals"):
                vision[name] = tuple(vision[name])
            parts["vision"] = VisionInfo(**vision)
        parts["schedules"] = {
            name: tuple(Stage(**stage) for stage in stages)
            for name, stages in values["schedules"].items()
        }
        return cls(**parts)


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened, checked bundle."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | os.PathLike[str], verify: bool = False) -> Bundle:
        """The bundle in folder `path`.

        verify: hash every file even if a stamp says that it was hashed before.
        Raises BundleError naming the file and the way out.
        """
        folder = Path(path)
        manifest = _read_manifest(folder)
        _check_files(folder, manifest, verify)
        return cls(folder, manifest)

    def file(self, name: str) -> Path:
        """Path of one of the bundle's files; raises BundleError if the bundle has none such."""
        if name not in self.manifest.files:
            raise BundleError(f"{self.path} has no {name}; {_EXPORT_AGAIN} with what it is for")
        return self.path / name

    def graph(self, name: str) -> Path:
        """Path of graph `name`, such as host.decoder."""
        return self.file(f"graphs/{name}.onnx")

    def read_json(self, name: str) -> dict[str, Any]:
        """One of the bundle's JSON files."""
        content = json.loads(self.file(name).read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise BundleError(f"{self.path / name} holds no JSON object; {_EXPORT_AGAIN}")
        return content


def _read_manifest(folder: Path) -> Manifest:
    file = folder / MANIFEST
    if not folder.exists():
        raise BundleError(f"{folder} does not exist; give the folder that `tightrope export` wrote")
    if not file.is_file():
        raise BundleError(f"{folder} has no {MANIFEST}: it is no bundle; {_EXPORT_AGAIN}")
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        found = values["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{file} is damaged ({error}); {_EXPORT_AGAIN}") from error
    if found != FORMAT:
        newer = isinstance(found, int) and found > FORMAT
        way_out = "upgrade tightrope" if newer else _EXPORT_AGAIN
        raise BundleError(f"{file} has format {found}, this reader knows {FORMAT}; {way_out}")
    try:
        return Manifest.from_dict(values)
    except (KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{file} is damaged ({error}); {_EXPORT_AGAIN}") from error


def _check_files(folder: Path, manifest: Manifest, verify: bool) -> None:
    stamp_file = state_folder(folder) / "stamp.json"
    stamps = {} if verify else _read_stamps(stamp_file)
    fresh: dict[str, list[Any]] = {}
    for name, entry in manifest.files.items():
        file = folder / name
        try:
            status = file.stat()
        except OSError as error:
            raise BundleError(f"{file} is missing; {_EXPORT_AGAIN}") from error
        if status.st_size != entry["bytes"]:
            raise BundleError(
                f"{file} has {status.st_size} bytes, the manifest says {entry['bytes']}: "
                f"it is cut short or edited; copy the bundle again or {_EXPORT_AGAIN}"
            )
        stamp = [status.st_size, status.st_mtime_ns, status.st_ino, entry["sha256"]]
        if stamps.get(name) != stamp and sha256_of(file) != entry["sha256"]:
            raise BundleError(
                f"{file} is not what was exported (its sha256 differs); "
                f"copy the bundle again or {_EXPORT_AGAIN}"
            )
        fresh[name] = stamp
    if fresh != stamps:
        _write_stamps(stamp_file, fresh)


def sha256_of(file: Path) -> str:
    """Hex digest of a file's content."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def state_folder(bundle: Path) -> Path:
    """Where what is learnt about a bundle on this machine is kept; the bundle itself never changes.

    TIGHTROPE_STATE if set, else NAME.state beside the bundle, else (where that folder cannot be
    written) a folder in XDG_STATE_HOME.
    """
    if chosen := os.environ.get("TIGHTROPE_STATE"):
        return Path(chosen)
    bundle = bundle.resolve()
    if os.access(bundle.parent, os.W_OK):
        return bundle.with_suffix(".state")
    home = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return home / "tightrope" / hashlib.sha256(str(bundle).encode()).hexdigest()[:16]


def _read_stamps(file: Path) -> dict[str, Any]:
    try:
        stamps = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # no stamp or a damaged one: everything is hashed again
    return stamps if isinstance(stamps, dict) else {}


def _write_stamps(file: Path, stamps: dict[str, list[Any]]) -> None:
    """Best effort: on a read-only system every opening hashes again."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(stamps), encoding="utf-8")
        temporary.replace(file)
    except OSError:
        temporary.unlink(missing_ok=True)
