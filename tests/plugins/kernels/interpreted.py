"""Kernels in Triton's interpreter beside their references: whole calls of the ops that are named.

    TRITON_INTERPRET=1 python interpreted.py SlotAttention ../slot_attention/kernel_cases.py ...

runs the cases that each file adds to those of its op, and prints as JSON, call by call, how far
each output is from the reference's. A process of its own, because what Triton makes of a kernel is
decided when its file is imported.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tightrope.plugins.cases import Case
from tightrope.plugins.description import Description, element_of, rows_of
from tightrope.plugins.expressions import evaluate
from tightrope.plugins.int4_matmul.reference import pack
from tightrope.plugins.kernels.source import find
from tightrope.plugins.ops import ops
from tightrope.plugins.tensorrt.calls import output_shapes, queue, workspace_bytes

HALF = "float16"
TYPES = {
    "*fp16": torch.float16,
    "*fp32": torch.float32,
    "*i8": torch.int8,
    "*i32": torch.int32,
    "*i64": torch.int64,
}
UNWRITTEN = 0x77
"""Bytes of what no kernel has written: no result of a case is made of them."""


class Memory:
    """Arrays by address, each with as much behind it as rounds it up to whole words."""

    def __init__(self) -> None:
        self._held: list[Any] = []

    def keep(self, array: Any) -> int:
        """The address of a copy."""
        held = torch.full((-(-array.nbytes // 256) * 256 + 256,), UNWRITTEN, dtype=torch.uint8)
        held[: array.nbytes] = torch.from_numpy(np.ascontiguousarray(array).view(np.uint8).ravel())
        self._held.append(held)
        return int(held.data_ptr())

    def at(self, address: int, kind: str) -> Any:
        """A pointer of the kind that a kernel takes; null as the number 0."""
        for held in self._held:
            if 0 <= address - held.data_ptr() < held.numel():
                return held[address - held.data_ptr() :].view(TYPES[kind])
        assert address == 0, "an address of nothing"
        return 0


class Interpreter:
    """Launches kernels by name."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def launch(self, kernel: str, values: Mapping[str, Any], stream: int) -> None:
        source, fixed = find(kernel)
        given = [
            self._memory.at(values[name], kind) if kind.startswith("*") else values[name]
            for name, kind in source.signature.items()
        ]
        grid = tuple(evaluate(axis, values) for axis in source.grid)
        if all(grid):
            source.function[grid](*given, **fixed)


def computed(description: Description, case: Case) -> list[Any]:
    """Outputs of one call in float16, as a plugin computes it."""
    memory, arrays, rows = Memory(), [], rows_of(description.schema, case.inputs)
    for row, array in zip(rows, (x for x in case.inputs if x is not None), strict=True):
        given = pack(array).view(np.int8).reshape(len(array), -1) if row.dtype == "int4" else array
        arrays.append(np.ascontiguousarray(given, element_of(row, HALF)))
    shapes = [array.shape for array in arrays]
    about = (description, rows, case.attributes, shapes)
    kinds = [element_of(row, HALF) for row in description.schema.outputs]
    outputs = [np.zeros(*each) for each in zip(output_shapes(*about), kinds, strict=True)]
    for each in outputs:
        each.view(np.uint8).fill(UNWRITTEN)
    inputs, to = [memory.keep(each) for each in arrays], [memory.keep(each) for each in outputs]
    workspace = memory.keep(np.full(workspace_bytes(*about), UNWRITTEN, np.uint8))
    queue(*about, (inputs, to, workspace), (Interpreter(memory), 0))
    return [
        memory.at(address, "*i8").numpy()[: each.nbytes].view(each.dtype).reshape(each.shape)
        for address, each in zip(to, outputs, strict=True)
    ]


def far(ours: Any, theirs: Any) -> float:
    """The largest difference, as a share of the largest number; of integers how many differ."""
    if ours.dtype.kind == "i":
        return float((ours != theirs).sum())
    ours, theirs = ours.astype(np.float64), theirs.astype(ours.dtype).astype(np.float64)
    if not np.isfinite(ours).all():
        return 0.0 if np.array_equal(ours, theirs) else float("inf")
    largest = max(np.abs(theirs).max(initial=0), np.finfo(np.float16).smallest_normal)
    return float(np.abs(ours - theirs).max(initial=0) / largest)


def compared(description: Description, case: Case) -> dict[str, float]:
    """How far each output of a call is from the reference's."""
    whole = [
        each if each is None or each.dtype != np.float16 else each.astype(np.float32)
        for each in case.inputs
    ]
    expected = description.reference(*whole, **case.attributes)
    names = [row.name for row in description.schema.outputs]
    return dict(zip(names, map(far, computed(description, case), expected), strict=True))


def cases_of(file: Path) -> Any:
    """What a file has as CASES: those that it adds to the op's own."""
    spec = importlib.util.spec_from_file_location(f"cases_{file.parent.name}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.CASES


if __name__ == "__main__":
    found, folders = {}, {}
    for op, description in ops().items():
        folders[description.cases.__module__.split(".")[-2]] = op, description
    for name in sys.argv[1:]:
        op, description = folders[Path(name).parent.name]
        for case in (*cases_of(Path(name)), *description.cases(32)):
            found[f"{op}: {case.name}"] = compared(description, case)
    json.dump(found, sys.stdout)
