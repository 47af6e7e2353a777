"""What bundle.json says of a bundle, read and checked before anything is allocated by it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from tightrope.checks import shown
from tightrope.errors import BundleError
from tightrope.foreign import translated
from tightrope.inputs.vision import VisionInfo
from tightrope.interface.names import GraphName
from tightrope.interface.onnx import ITEM_BYTES, OWN_OPSET
from tightrope.interface.ranges import Ranges, decoder_ranges, select_ranges
from tightrope.interface.tensors import (
    FLOAT_SLOTS,
    INT8_SLOTS,
    KV_CACHES,
    Dims,
    Rows,
    decoder_inputs,
    decoder_outputs,
    select_inputs,
    select_outputs,
    slot_bytes,
)
from tightrope.typed import typed

if TYPE_CHECKING:  # what it needs is not loaded before a bundle is opened
    from tightrope.inputs.prepare import Tower

FORMAT = 2
MANIFEST = "bundle.json"
EMBEDDINGS = "embeddings.data"
SELFTEST = "selftest.npz"
EXPORT_AGAIN = "export the checkpoint again"
_MAY_BE_NONE = ("deepstack", "reach", "conv_layers", "conv_inputs")
"""Dims that a decoder may have none of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One selection inside the language model, at the input of `layer`."""

    layer: int
    share: float
    """Tokens left, as a multiple of those that the request keeps; the last stage has 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectorInfo:
    """What the runtime must know of a selector's graph."""

    signals: tuple[str, ...]
    text_guided: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """A file of the bundle as it was written."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The checkpoint that the weights came from."""

    name: str
    revision: str
    licence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """How far the exported graphs lie from Hugging Face's model with the weights as written."""

    logits: float
    """Largest difference of a logit."""
    allowed: float
    """The largest that is accepted."""
    equal_tokens: int
    """Greedy tokens that agree."""
    tokens: int
    """Greedy tokens that were compared."""
    int8_activations: float | None = None
    """int4: relative difference of logits computed with int8 and with float32 activations."""
    int8_prefill: float | None = None
    """Relative difference of logits where prompts multiply in int8, single tokens in int4."""
    int8_tower: float | None = None
    """Relative difference of logits between a tower in int8 and in float32."""
    int8_slots: float | None = None
    """Relative difference of logits between slots in int8 and in float32."""
    stored_weights: float | None = None
    """Relative difference of logits between the weights as written and the checkpoint's own."""
    read_weights: float | None = None
    """GGUF: relative difference of logits between Hugging Face's model as read from the file and
    the file's own tensors, computed without the reader."""
    tolerance: float | None = None
    """By how much a likely token's logit may differ on another backend: three times what rounding
    changed when the standard graphs, and int8 activations, were tried at export."""
    overflow: str | None = None
    """The first node of a standard graph that gives a number beyond float16, and that number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerInt8:
    """How far a tower whose products are int8 lies from itself in float32, on drawn pictures."""

    embeds: float
    """Relative difference of visual tokens."""
    agreement: dict[str, float]
    """By selector, the share of the tokens kept at 25 % that both keep."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightGroup:
    """What one part of the model takes, such as attention or the head, and what that costs."""

    stored: dict[str, int]
    """How tensors are stored -> how many are: int4 by 32 with minima (Q4_1)."""
    bytes: int
    logit_error: float | None = None
    """int4: relative difference of logits when this part alone is as it was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginGraph:
    """What a graph with own ops asks of a board."""

    operators: dict[str, str]
    """Of ONNX -> one node of that type."""
    own_ops: dict[str, str]
    """The same of ours."""
    kernels: tuple[str, ...]
    """That its own ops launch."""


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
    minimum_onnxruntime: str
    source: Source
    kv_cache: str = FLOAT_SLOTS
    """What slots hold keys and values in, one of KV_CACHES."""
    vision: VisionInfo | None = None
    selectors: dict[str, SelectorInfo] = field(default_factory=dict)
    windows: tuple[int, ...] = ()
    """[L]: the newest tokens that each layer sees, 0 where it sees all; empty where all do."""
    max_positions: int | None = None
    """Tokens of a conversation that the rotary frequencies hold for; None where they never end."""
    head_columns: int | None = None
    """Tokens of the widest product of the head; None: one product has the whole vocabulary."""
    schedules: dict[str, tuple[Stage, ...]] = field(default_factory=dict)
    standard_ops: dict[str, dict[str, str]] = field(default_factory=dict)
    """Per standard graph: operator -> one node of that type."""
    plugins: dict[str, PluginGraph] = field(default_factory=dict)
    """By the name of each graph that has own ops as plugins."""
    no_plugins: tuple[str, ...] = ()
    """Why there are no such graphs: what kernels do not take of the model."""
    exporter: dict[str, str] = field(default_factory=dict)
    parity: Parity | None = None
    tower_int8: TowerInt8 | None = None
    """Where the host's tower multiplies in int8; None: in float32."""
    weights: dict[str, WeightGroup] = field(default_factory=dict)
    """By part of the model: attention, mlp, head, embeddings, norms, tower, projector."""
    files: dict[str, FileEntry] = field(default_factory=dict)

    @property
    def slot_bytes(self) -> int:
        """Of a slot's key and value in one layer and KV head, as a GPU holds them."""
        return 2 * slot_bytes(self.dims.head_dim, self.kv_cache, ITEM_BYTES[self.activations])

    @property
    def slots_by_layer(self) -> tuple[int, ...]:
        """[L]: slots that each layer holds at most between calls."""
        windows = self.windows or (0,) * self.dims.num_hidden_layers
        return tuple(min(self.slots, window or self.slots) for window in windows)

    @property
    def tower(self) -> Tower | None:
        """The numpy half of the vision tower; None for a text model."""
        if self.vision is None:
            return None
        from tightrope.inputs.prepare import create_tower

        return create_tower(self.vision)

    def ranges(self, name: GraphName) -> Ranges:
        """Shortest, most common and longest length of each axis of a graph."""
        tower = self.tower
        if tower is not None and name.role == "vision":
            return tower.ranges()
        tokens = None if tower is None else tower.token_ranges()
        if tokens is not None and name.role == "select":
            return select_ranges(tokens, self.prefill_chunk)
        return decoder_ranges(
            name,
            self.dims,
            self.slots,
            self.prefill_chunk,
            len(self.schedules.get(name.method, ())),
            None if tokens is None else tokens["V"],
        )

    def rows(self, name: GraphName) -> Rows:
        """Inputs and outputs of one of the graphs; KeyError for one that is not listed."""
        dims = self.dims
        if name.role in ("decoder", "prefill", "decode"):
            stages = len(self.schedules[name.method]) if name.method else 0
            kv_cache = self.kv_cache if name.variant == "plugins" else FLOAT_SLOTS
            inputs = decoder_inputs(dims, stages, name.role != "prefill", kv_cache)
            return (*inputs, *decoder_outputs(dims, stages))
        tower = self.tower
        assert tower is not None, "a model without a tower has decoders alone"
        vision = tower.output_rows(dims.hidden_size)
        if name.role == "vision":
            return (*tower.input_rows(), *vision)
        reads = self.selectors[name.method]
        selected = select_inputs(vision, reads.signals, reads.text_guided)
        return (*selected, *select_outputs(dims.hidden_size))

    def to_dict(self) -> dict[str, Any]:
        """The manifest as JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Manifest:
        """The manifest that `to_dict` wrote; raises TypeError or ValueError for anything else."""
        manifest: Manifest = typed(cls, values, MANIFEST)
        _check_values(manifest)
        return manifest


def _check_values(manifest: Manifest) -> None:
    """Raises ValueError for what no export writes and what would size an allocation."""
    sizes = {**asdict(manifest.dims), "slots": manifest.slots, "chunk": manifest.prefill_chunk}
    for name, number in sizes.items():
        if number < (0 if name in _MAY_BE_NONE else 1):
            raise ValueError(f"{name} is {number}")
    tower = manifest.tower  # which checks its sizes
    if manifest.vision is not None:
        _check_vision(manifest.vision, manifest.dims.vocab_size)
    if manifest.dims.reach:
        sides = () if manifest.vision is None else manifest.vision.resolutions
        if tower is None or max(map(tower.most_tokens, sides)) > manifest.prefill_chunk:
            raise ValueError(f"images do not fit prefill_chunk {manifest.prefill_chunk}")
    if manifest.kv_cache not in KV_CACHES:
        raise ValueError(f"kv_cache is {manifest.kv_cache!r}")
    if manifest.kv_cache == INT8_SLOTS and not manifest.plugins:
        raise ValueError(f"kv_cache is {manifest.kv_cache}, which no graph of it reads")
    for kind in (manifest.embeddings, manifest.activations):
        if kind not in ("float16", "float32"):
            raise ValueError(f"an element type is {kind!r}")
    if not all(part.isdecimal() for part in manifest.minimum_onnxruntime.split(".")):
        raise ValueError(f"minimum_onnxruntime is {manifest.minimum_onnxruntime!r}")
    layers = manifest.dims.num_hidden_layers
    for name, stages in manifest.schedules.items():
        if not stages or not all(0 <= stage.layer < layers for stage in stages):
            raise ValueError(f"schedule {name} acts outside the {layers} layers")
    for name in manifest.plugins:
        if GraphName.parse(name).file not in manifest.files:
            raise ValueError(f"plugins names {name}, which is no file of the bundle")
    for name in manifest.files:
        path = PurePosixPath(name)
        if path.is_absolute() or path.as_posix() != name or {"..", "."} & {*path.parts, name}:
            raise ValueError(f"the file name {name!r} leads out of the bundle")
    if manifest.windows and (len(manifest.windows) != layers or min(manifest.windows) < 0):
        raise ValueError(f"windows is {shown(manifest.windows)}, there are {layers} layers")
    if manifest.max_positions is not None and manifest.max_positions < 1:
        raise ValueError(f"max_positions is {manifest.max_positions}")
    columns, tokens = manifest.head_columns, manifest.dims.vocab_size
    if columns is not None and not 1 <= columns <= tokens:
        raise ValueError(f"head_columns is {columns}, there are {tokens} tokens")
    table = manifest.files.get(EMBEDDINGS)
    rows = manifest.dims.vocab_size + (manifest.vision.separators if manifest.vision else 0)
    wanted = rows * manifest.dims.hidden_size * ITEM_BYTES[manifest.embeddings]
    if table is not None and table.bytes != wanted:
        raise ValueError(f"{EMBEDDINGS} has {table.bytes} bytes, dims say {wanted}")


def _check_vision(vision: VisionInfo, vocabulary: int) -> None:
    known = vocabulary + vision.separators
    if vision.separators < 0:
        raise ValueError(f"separators is {vision.separators}")
    for name, ids in {**vision.ids, "image_token_id": (vision.image_token_id,)}.items():
        if not all(0 <= token < known for token in ids):
            raise ValueError(f"{name} is {ids}, there are {known} embeddings")


def read_manifest(folder: Path) -> Manifest:
    """What bundle.json says, whatever the other files are; raises BundleError."""
    file = folder / MANIFEST
    with translated(BundleError, f"{file} cannot be read", "change its permissions"):
        if not folder.exists():
            raise BundleError(
                f"{folder} does not exist; give the folder that `tightrope export` wrote"
            )
        if not file.is_file():
            raise BundleError(f"{folder} has no {MANIFEST}: it is no bundle; {EXPORT_AGAIN}")
        content = file.read_bytes()
    with translated(BundleError, f"{file} is damaged", EXPORT_AGAIN):
        values = json.loads(content.decode())
        found = values["format"]
    if found != FORMAT:
        newer = isinstance(found, int) and found > FORMAT
        way_out = "upgrade tightrope" if newer else EXPORT_AGAIN
        raise BundleError(
            f"{file} has format {shown(found)}, this reader knows {FORMAT}; {way_out}"
        )
    if values.get("opset_version") != OWN_OPSET:
        raise BundleError(
            f"{file} has opset_version {shown(values.get('opset_version'))}, this reader knows "
            f"{OWN_OPSET}; {EXPORT_AGAIN}, or use the tightrope that wrote it"
        )
    with translated(BundleError, f"{file} is damaged", EXPORT_AGAIN):
        return Manifest.from_dict(values)
