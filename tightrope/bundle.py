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

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path, PurePosixPath
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from tightrope.errors import BundleError, InputError
from tightrope.interface import Dims

FORMAT = 1
MANIFEST = "bundle.json"
_ITEM_BYTES = {"float16": 2, "float32": 4}
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
        """The manifest that `to_dict` wrote; raises TypeError or ValueError for anything else."""
        manifest: Manifest = _typed(cls, values, MANIFEST)
        _check_values(manifest)
        return manifest


def _typed(hint: Any, value: Any, name: str) -> Any:
    """A value of JSON as what the annotation `hint` says; raises TypeError naming the entry."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, UnionType):  # X | None
        return None if value is None else _typed(arguments[0], value, name)
    if is_dataclass(hint) and isinstance(value, Mapping):
        hints = get_type_hints(hint)
        if unknown := sorted(set(value) - set(hints)):
            raise TypeError(f"{name} has unknown entries {unknown}")
        parts = {key: _typed(hints[key], item, f"{name}: {key}") for key, item in value.items()}
        built: Any = hint
        return built(**parts)
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(_typed(arguments[0], item, name) for item in value)
    if origin is dict and isinstance(value, Mapping):
        return {key: _typed(arguments[1], item, f"{name}: {key}") for key, item in value.items()}
    if type(value) is not hint:
        kind = getattr(origin or hint, "__name__", hint)
        raise TypeError(f"{name} is {value!r}, which is no {kind}")
    return value


def _check_values(manifest: Manifest) -> None:
    """Raises ValueError for what no export writes and what would size an allocation."""
    sizes = {**asdict(manifest.dims), "slots": manifest.slots, "chunk": manifest.prefill_chunk}
    vision, layers = manifest.vision, manifest.dims.num_hidden_layers
    if vision is not None:
        sizes |= {"patch_size": vision.patch_size, "resolution": min(vision.resolutions, default=0)}
        if any(side % vision.patch_size for side in vision.resolutions if vision.patch_size > 0):
            raise ValueError(f"resolutions are {vision.resolutions}, patches {vision.patch_size}")
    for name, number in sizes.items():
        if number < 1:
            raise ValueError(f"{name} is {number}")
    for kind in (manifest.embeddings, manifest.activations):
        if kind not in _ITEM_BYTES:
            raise ValueError(f"an element type is {kind!r}")
    if not all(part.isdecimal() for part in manifest.minimum_onnxruntime.split(".")):
        raise ValueError(f"minimum_onnxruntime is {manifest.minimum_onnxruntime!r}")
    for name, stages in manifest.schedules.items():
        if not stages or not all(0 <= stage.layer < layers for stage in stages):
            raise ValueError(f"schedule {name} acts outside the {layers} layers")
    for name, entry in manifest.files.items():
        path = PurePosixPath(name)
        if path.is_absolute() or path.as_posix() != name or {"..", "."} & {*path.parts, name}:
            raise ValueError(f"the file name {name!r} leads out of the bundle")
        if type(entry.get("bytes")) is not int or type(entry.get("sha256")) is not str:
            raise ValueError(f"{name} has no bytes and sha256")
    table = manifest.files.get("embeddings.data")
    wanted = manifest.dims.vocab_size * manifest.dims.hidden_size * _ITEM_BYTES[manifest.embeddings]
    if table is not None and table["bytes"] != wanted:
        raise ValueError(f"embeddings.data has {table['bytes']} bytes, dims say {wanted}")


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
        if not isinstance(path, (str, os.PathLike)) or not str(path):
            raise InputError(
                f"path is {path!r}; accepted: the folder that `tightrope export` wrote"
            )
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
        try:
            content = json.loads(self.file(name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise BundleError(
                f"{self.path / name} is damaged ({error}); {_EXPORT_AGAIN}"
            ) from error
        if not isinstance(content, dict):
            raise BundleError(f"{self.path / name} holds no JSON object; {_EXPORT_AGAIN}")
        return content


def _read_manifest(folder: Path) -> Manifest:
    file = folder / MANIFEST
    try:
        if not folder.exists():
            raise BundleError(
                f"{folder} does not exist; give the folder that `tightrope export` wrote"
            )
        if not file.is_file():
            raise BundleError(f"{folder} has no {MANIFEST}: it is no bundle; {_EXPORT_AGAIN}")
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise BundleError(f"{file} cannot be read ({error}); change its permissions") from error
    except ValueError as error:
        raise BundleError(f"{file} is damaged ({error}); {_EXPORT_AGAIN}") from error
    try:
        values = json.loads(text)
        found = values["format"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BundleError(f"{file} is damaged ({error}); {_EXPORT_AGAIN}") from error
    if found != FORMAT:
        newer = isinstance(found, int) and found > FORMAT
        way_out = "upgrade tightrope" if newer else _EXPORT_AGAIN
        raise BundleError(f"{file} has format {found}, this reader knows {FORMAT}; {way_out}")
    try:
        return Manifest.from_dict(values)
    except (TypeError, ValueError) as error:
        raise BundleError(f"{file} is damaged ({error}); {_EXPORT_AGAIN}") from error


def _check_files(folder: Path, manifest: Manifest, verify: bool) -> None:
    stamp_file = state_folder(folder) / "stamp.json"
    stamps = {} if verify else _read_stamps(stamp_file)
    fresh: dict[str, list[Any]] = {}
    for name, entry in manifest.files.items():
        file = folder / name
        if not file.is_file():  # nor a folder or a pipe
            raise BundleError(f"{file} is missing; copy the bundle again or {_EXPORT_AGAIN}")
        status = file.stat()
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
    try:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise BundleError(f"{file} cannot be read ({error}); change its permissions") from error
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
    home = Path(os.environ.get("HOME") or tempfile.gettempdir())  # a service may have no home
    state = Path(os.environ.get("XDG_STATE_HOME") or home / ".local" / "state")
    return state / "tightrope" / hashlib.sha256(str(bundle).encode()).hexdigest()[:16]


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
        # A read-only system refuses this as well, even where there is nothing to remove.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
