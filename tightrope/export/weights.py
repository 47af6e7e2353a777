"""One external-data file for all graphs of a bundle: each stored tensor is written once."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import onnx_ir as ir
import torch

from tightrope.arrays import Array, Codes
from tightrope.errors import BundleError, UnsupportedModel
from tightrope.export.coded import FLOATS, Coded, Form, Published
from tightrope.export.config import Precision
from tightrope.export.graphs.passes.eight_bit import OF_INT8
from tightrope.export.graphs.passes.linear import (
    BY_COLUMNS,
    LAYOUT,
    OF_CODES,
    PARAMETER,
    column_parts,
    part_of,
)
from tightrope.export.graphs.passes.prompt_int8 import OF_PROMPTS
from tightrope.export.rounding import Rounding
from tightrope.export.tracing.trace import parameter_name
from tightrope.plugins.int4_matmul.reference import pack, unpack

FILE = "weights.data"
_Key = tuple[str, str, int]
"""A parameter, its layout, and which of its `column_parts`."""
_ALIGN = 4096  # so that a tensor can be mapped on its own
_MOST_INT8 = 127
_AT_ONCE = 1 << 22
"""Numbers of a tensor that are rounded, turned or written in one go."""
_FUSES_INT8 = "1.25"  # tried: 1.24.4 fuses int4 alone


@dataclass(frozen=True, slots=True)
class Stored:
    """One parameter as it lies in the file."""

    how: str
    bytes: int


class WeightFile:
    """Writes parameters as graphs ask for them, and tells graphs where they lie."""

    def __init__(
        self,
        folder: Path,
        parameters: Mapping[str, torch.Tensor],
        precision: Precision,
        rounding: Rounding,
        published: Mapping[str, Published] | None = None,
    ) -> None:
        """parameters: may be read anew at each access. rounding: of int4, where the checkpoint has
        floats.

        published: matrices as the checkpoint has them; where it has one in codes, no other matrix
        is quantised.
        """
        self._stream: IO[bytes] = (folder / FILE).open("wb")
        self._parameters = parameters
        self._half = precision.storage == "float16"
        self._quantized = precision.quantized
        self._rounding = rounding
        published = published or {}
        origins = {entry.origin for entry in published.values()} - FLOATS
        self._unread = sorted(origins) if precision.quantized else []
        has_codes = any(entry.read is not None for entry in published.values())
        self._published = published if has_codes and precision.quantized else {}
        self._stored: dict[_Key, ir.ExternalTensor] = {}
        self._forms: dict[str, Form | None] = {}

    def __enter__(self) -> WeightFile:
        return self

    def __exit__(self, failure: object, *_: object) -> None:
        with contextlib.suppress(*[OSError] if failure else []):  # a full disk was told
            self._stream.close()

    def form(self, initializer: str) -> Form | None:
        """The codes that the matrix of a traced graph is stored in, None where it stays floats.

        Asked for each matrix that may have codes; they are written at once.
        """
        return self._form(parameter_name(initializer))

    def _form(self, parameter: str) -> Form | None:
        if parameter not in self._forms:
            read = self._coded(parameter)
            self._forms[parameter] = None if read is None else self._write_codes(parameter, read)
        return self._forms[parameter]

    def bind(self, model: ir.Model) -> None:
        """Give every initializer of a traced graph its place in the file.

        Where a graph computes in another type than the weight is stored in, a cast is added.
        """
        for graph in (model.graph, *model.graph.subgraphs()):
            for value in list(graph.initializers.values()):
                if value.const_value is None:
                    self._bind(graph, value)

    def _bind(self, graph: ir.Graph, value: ir.Value) -> None:
        name = value.metadata_props.get(PARAMETER, str(value.name))
        key = parameter_name(name), value.metadata_props.get(LAYOUT, "plain"), part_of(value) or 0
        tensor = self._store(key)
        wanted = value.dtype
        value.const_value = tensor
        value.type = ir.TensorType(tensor.dtype)  # a clone shares its type objects
        value.shape = ir.Shape(tensor.shape)
        if wanted != tensor.dtype:
            _cast(graph, value, wanted)

    def is_quantized(self, parameter: str) -> bool:
        """Whether the graphs hold a parameter in codes."""
        return self._forms.get(parameter) is not None

    def in_graphs(self, parameter: str) -> torch.Tensor:
        """A parameter as the host graphs compute with it, float32: rounded, or read from codes."""
        form = self._forms.get(parameter)
        if form is None:
            return self.rounded(parameter)
        read = Coded(
            codes=self._read(parameter, "codes"),
            bits=form.bits,
            scale=self._read(parameter, "scale"),
            zero=self._read(parameter, "zero") if form.zero else None,
            shift=self._read(parameter, "shift") if form.shift else None,
            order=self._read(parameter, "order") if form.order else None,
        )
        return torch.from_numpy(read.weight())

    def in_storage(self, parameter: str) -> torch.Tensor:
        """A parameter rounded to the storage type and never quantised."""
        return self._rounded(parameter, self._parameters[parameter])

    def rounded(self, parameter: str) -> torch.Tensor:
        """The same, float32."""
        return self.in_storage(parameter).float()

    def drop_int8(self) -> None:
        """Forget the matrices in int8, which were written last, once no graph reads them."""
        dropped = [key for key in self._stored if key[1] in OF_INT8]
        places = [self._stored.pop(key).offset or 0 for key in dropped]
        os.truncate(self._stream.name, min(places))

    def stored(self) -> dict[str, Stored]:
        """Every parameter that is in the file so far."""
        sizes: dict[str, int] = {}
        for (parameter, *_), tensor in self._stored.items():
            sizes[parameter] = sizes.get(parameter, 0) + tensor.nbytes
        return {name: Stored(self._how(name), size) for name, size in sizes.items()}

    def notes(self) -> list[str]:
        """Sentences for the summary: what could not be stored as it was wished."""
        said = []
        if self._unread and not self._published:
            said.append(
                f"the checkpoint's codes ({', '.join(self._unread)}) have no product here: its "
                "weights were dequantised and quantised again"
            )
        if any(form is not None and form.bits == 8 for form in self._forms.values()):
            said.append(
                f"matrices in int8 are fast from ONNX Runtime {_FUSES_INT8} on: older releases "
                "dequantise them in every call"
            )
        left = sum(form is None for form in self._forms.values())
        if left and self._quantized and not self._published:
            said.append(
                f"{left} matrices stay float16: their inputs are no whole number of "
                f"{self._rounding.smallest_block}-blocks"
            )
        experts = sum(len(tensor.shape) == 3 for tensor in self._stored.values())
        if experts and self._quantized:
            said.append(f"{experts} parameters stay float16: they are of experts")
        return said

    def _how(self, parameter: str) -> str:
        form, entry = self._forms.get(parameter), self._published.get(parameter)
        if form is not None:
            how = form.words()
            if (parameter, OF_PROMPTS[0], 0) in self._stored:
                how = f"{how}, int8 by output for prompts"
        else:
            tensors = [
                tensor
                for (name, layout, _), tensor in self._stored.items()
                if name == parameter and layout not in OF_INT8
            ]
            how = tensors[0].dtype.numpy().name
            if (parameter, OF_INT8[0], 0) in self._stored:
                how = f"int8 by output, {how} for TensorRT"
        named = entry is not None and (form is not None or entry.origin not in FLOATS)
        return f"{how} ({entry.origin})" if entry is not None and named else how

    def _coded(self, parameter: str) -> Coded | None:
        if not self._quantized:
            return None
        if self._published:
            entry = self._published.get(parameter)
            return None if entry is None or entry.read is None else entry.read()
        value = self._parameters[parameter]
        if not self._rounding.fits(value):
            return None
        self._rounded(parameter, value)  # scales are float16: what that cannot hold, int4 cannot
        return self._rounding.coded(parameter, value)

    def _write_codes(self, parameter: str, read: Coded) -> Form:
        self._write_array(parameter, "codes", read.codes, four_bits=read.bits == 4)
        self._write_array(parameter, "scale", read.scale)
        if read.zero is not None:
            self._write_array(parameter, "zero", read.zero, four_bits=True)
            # What graphs read that have no zeros; they compute in float16.
            minimum = -read.zero * read.scale.astype(np.float32)
            self._write_array(parameter, "shift", minimum.astype(np.float16))
        if read.shift is not None:
            self._write_array(parameter, "shift", read.shift)
        if read.order is not None:
            self._write_array(parameter, "order", read.order)
        return read.form

    def _store(self, key: _Key) -> ir.ExternalTensor:
        parameter, layout, _ = key
        if key not in self._stored and layout in OF_CODES:
            assert self._form(parameter) is not None, "graphs ask for codes that there are"
        elif key not in self._stored and layout in (*OF_INT8, *OF_PROMPTS):
            self._write_int8(parameter, OF_INT8 if layout in OF_INT8 else OF_PROMPTS)
        elif key not in self._stored:
            value = self.in_storage(parameter)
            value = value.T if layout == "transposed" else value
            kind = ir.DataType.from_numpy(value.new_empty(0).numpy().dtype)
            for place, part in enumerate(_cut(layout, value)):
                self._write((parameter, layout, place), kind, part.shape, _rows(part))
        return self._stored[key]

    def _write_int8(self, parameter: str, layouts: tuple[str, str]) -> None:
        """Codes [K,N] and a scale for each output: of towers and prompts on ONNX Runtime."""
        weight = self.in_graphs(parameter).T.contiguous().numpy()
        scale = np.abs(weight).max(0) / np.float32(_MOST_INT8)
        scale[scale == 0] = 1
        codes, scales = layouts
        self._write_array(parameter, codes, np.rint(weight / scale).astype(np.int8))
        self._write_array(parameter, scales, scale)

    def _write_array(
        self, parameter: str, layout: str, array: Array | Codes, four_bits: bool = False
    ) -> None:
        kind = ir.DataType.INT4 if four_bits else ir.DataType.from_numpy(array.dtype)
        for place, part in enumerate(_cut(layout, array)):
            self._write((parameter, layout, place), kind, part.shape, _pieces(part))

    def _write(self, key: _Key, kind: ir.DataType, shape: Any, pieces: Iterable[Array]) -> None:
        """A tensor in pieces, which are consecutive; raises BundleError where the disk is full."""
        offset = -(-self._stream.tell() // _ALIGN) * _ALIGN
        try:
            self._stream.write(bytes(offset - self._stream.tell()))
            for piece in pieces:
                self._stream.write((pack(piece) if kind == ir.DataType.INT4 else piece).data)
            self._stream.flush()
        except OSError as error:
            raise BundleError(
                f"{FILE} cannot grow beyond {offset / 1e6:.1f} MB, at {key[0]} "
                f"({error.strerror}): make room, or choose another place; nothing is left of it"
            ) from error
        self._stored[key] = ir.ExternalTensor(
            FILE,
            offset,
            self._stream.tell() - offset,
            kind,
            shape=ir.Shape(shape),
            name=".".join(key[:2]),
            base_dir=str(Path(self._stream.name).parent),
        )

    def _read(self, parameter: str, layout: str) -> Array:
        """What was written, four bits as int8; not kept, as the tensor itself would."""
        stored = self._stored.items()
        parts = [_read(part) for key, part in stored if key[:2] == (parameter, layout)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, 1)

    def _rounded(self, parameter: str, value: torch.Tensor) -> torch.Tensor:
        """`value` in the storage type; raises UnsupportedModel where that cannot hold it."""
        if not value.is_floating_point():
            return value
        if not _finite(value):
            raise UnsupportedModel(
                f"{parameter} holds NaN or infinity: the checkpoint is damaged; get it again"
            )
        # Scales and rotary frequencies are buffers that models keep in float32.
        kept = value.dim() == 0 or "inv_freq" in parameter
        if not self._half or (kept and value.dtype == torch.float32):
            return value.float()
        half = value.to(torch.float16)
        if not _finite(half):
            raise UnsupportedModel(
                f"{parameter} holds values that float16 cannot: export with precision fp32"
            )
        return half


def _finite(value: torch.Tensor) -> bool:
    """Whether all numbers are; where one of them is NaN, so are the least and the largest."""
    return value.numel() == 0 or all(bool(end.isfinite()) for end in torch.aminmax(value))


def _cut(layout: str, matrix: Any) -> list[Any]:
    """A tensor of numpy or torch, by columns where graphs ask for it so."""
    if layout not in BY_COLUMNS:
        return [matrix]
    return [matrix[:, some] for some in column_parts(matrix.shape[1])]


def _pieces(array: Array | Codes) -> Iterator[Array]:
    """Its numbers in their order."""
    flat = array.reshape(-1)
    return (flat[first : first + _AT_ONCE] for first in range(0, flat.size, _AT_ONCE))


def _read(tensor: ir.ExternalTensor) -> Array:
    assert tensor.offset is not None and tensor.length is not None
    with Path(tensor.path).open("rb") as file:
        file.seek(tensor.offset)
        data = file.read(tensor.length)
    if tensor.dtype == ir.DataType.INT4:
        array: Array = unpack(np.frombuffer(data, np.uint8), tensor.size)
    else:
        array = np.frombuffer(data, tensor.dtype.numpy())
    shaped: Array = array.reshape(tensor.shape.numpy())
    return shaped


def _rows(value: torch.Tensor) -> Iterator[Array]:
    """Rows of a tensor in their order, at least one at a time."""
    rows = value.reshape(1) if value.dim() == 0 else value
    count = max(1, _AT_ONCE // max(1, rows[0].numel()))
    for part in torch.split(rows, count):
        yield part.contiguous().numpy()


def _cast(graph: ir.Graph, value: ir.Value, dtype: ir.DataType | None) -> None:
    assert dtype is not None
    node = ir.Node("", "Cast", [value], attributes=[ir.AttrInt64("to", dtype.value)])
    # A name of its own: those that are made up on writing may be another branch's.
    node.name = node.outputs[0].name = f"{value.name}.cast"
    node.outputs[0].dtype = dtype
    node.outputs[0].shape = value.shape
    uses = [use for use in value.uses() if use.node is not node]
    for use in uses:
        use.node.replace_input_with(use.idx, node.outputs[0])
    graph.insert_before(graph[0], node)
