"""One external-data file for all graphs of a bundle: each stored tensor is written once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np
import onnx_ir as ir
import torch

from tightrope.arrays import Codes, Halves
from tightrope.errors import UnsupportedModel
from tightrope.export.config import Precision
from tightrope.export.graphs.passes.linear import INT4_LAYOUTS, LAYOUT, PARAMETER
from tightrope.export.tracing.trace import parameter_name
from tightrope.plugins.int4_matmul.reference import dequantize, pack, quantize

FILE = "weights.data"
_ALIGN = 4096  # so that a tensor can be mapped on its own


class WeightFile:
    """Writes parameters as graphs ask for them, and tells graphs where they lie."""

    def __init__(
        self,
        folder: Path,
        parameters: Mapping[str, torch.Tensor],
        precision: Precision,
        block_size: int,
    ) -> None:
        """block_size: weights that share one int4 scale."""
        self._stream: IO[bytes] = (folder / FILE).open("wb")
        self._parameters = parameters
        self._half = precision.storage == "float16"
        self._block_size = block_size
        self._stored: dict[tuple[str, str], ir.ExternalTensor] = {}
        self._quantized: set[str] = set()

    def __enter__(self) -> WeightFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def bind(self, model: ir.Model) -> None:
        """Give every initializer of a traced graph its place in the file.

        Where a graph computes in a wider type than the weight is stored in, a cast is added.
        """
        for graph in (model.graph, *model.graph.subgraphs()):
            for value in list(graph.initializers.values()):
                if value.const_value is None:
                    self._bind(graph, value)

    def _bind(self, graph: ir.Graph, value: ir.Value) -> None:
        name = value.metadata_props.get(PARAMETER, str(value.name))
        tensor = self._store(parameter_name(name), value.metadata_props.get(LAYOUT, "plain"))
        wanted = value.dtype
        value.const_value = tensor
        value.type = ir.TensorType(tensor.dtype)  # a clone shares its type objects
        value.shape = ir.Shape(tensor.shape)
        if wanted != tensor.dtype:
            _cast(graph, value, wanted)

    def is_quantized(self, parameter: str) -> bool:
        """Whether the graphs hold a parameter as int4."""
        return parameter in self._quantized

    def in_graphs(self, parameter: str) -> torch.Tensor:
        """A parameter as the graphs compute with it, float32: rounded, or read back from int4."""
        if parameter not in self._quantized:
            return self.rounded(parameter)
        codes = self._stored[parameter, "codes"].numpy().astype(np.int8)
        scale = self._stored[parameter, "scale"].numpy()
        return torch.from_numpy(np.ascontiguousarray(dequantize(codes, scale).T))

    def rounded(self, parameter: str) -> torch.Tensor:
        """A parameter rounded to the storage type and never quantised, float32."""
        return self._rounded(parameter, self._parameters[parameter]).float()

    def _store(self, parameter: str, layout: str) -> ir.ExternalTensor:
        key = (parameter, layout)
        if key not in self._stored:
            if layout in INT4_LAYOUTS:
                self._write_int4(parameter)
            else:
                value = self._rounded(parameter, self._parameters[parameter])
                value = value.T if layout == "transposed" else value
                array = value.contiguous().numpy()
                kind = ir.DataType.from_numpy(array.dtype)
                self._write(parameter, layout, array.tobytes(), kind, array.shape)
        return self._stored[key]

    def _write_int4(self, parameter: str) -> None:
        codes, scale = self._quantize(parameter)
        self._quantized.add(parameter)
        self._write(parameter, "codes", pack(codes).tobytes(), ir.DataType.INT4, codes.shape)
        self._write(parameter, "scale", scale.tobytes(), ir.DataType.FLOAT16, scale.shape)

    def _write(
        self, parameter: str, layout: str, data: bytes, kind: ir.DataType, shape: tuple[int, ...]
    ) -> None:
        offset = self._stream.tell()
        if offset % _ALIGN:
            self._stream.write(bytes(_ALIGN - offset % _ALIGN))
            offset = self._stream.tell()
        self._stream.write(data)
        self._stream.flush()
        self._stored[parameter, layout] = ir.ExternalTensor(
            FILE,
            offset,
            len(data),
            kind,
            shape=ir.Shape(shape),
            name=f"{parameter}.{layout}",
            base_dir=str(Path(self._stream.name).parent),
        )

    def _quantize(self, parameter: str) -> tuple[Codes, Halves]:
        value = self._parameters[parameter]
        self._rounded(parameter, value)  # scales are float16: what that cannot hold, int4 cannot
        weight = value.float().T.contiguous().numpy()
        return quantize(weight, self._block_size)

    def _rounded(self, parameter: str, value: torch.Tensor) -> torch.Tensor:
        """`value` in the storage type; raises UnsupportedModel where that cannot hold it."""
        if not value.is_floating_point():
            return value
        if not bool(torch.isfinite(value).all()):
            raise UnsupportedModel(
                f"{parameter} holds NaN or infinity: the checkpoint is damaged; get it again"
            )
        # Scales and rotary frequencies are buffers that models keep in float32.
        kept = value.dim() == 0 or "inv_freq" in parameter
        if not self._half or (kept and value.dtype == torch.float32):
            return value.float()
        half = value.to(torch.float16)
        if not bool(torch.isfinite(half).all()):
            raise UnsupportedModel(
                f"{parameter} holds values that float16 cannot: export with precision fp32"
            )
        return half


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
