"""One call of an op on a GPU: which kernels are launched, with what, in which order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from tightrope.errors import BackendError
from tightrope.interface.tensors import Rows
from tightrope.plugins.description import LEADING, Description, Step, bound, pointer_names
from tightrope.plugins.expressions import evaluate


class Launcher(Protocol):
    """What has the kernels and queues them."""

    def launch(self, kernel: str, values: Mapping[str, Any], stream: int) -> None:
        """Queue a kernel by name on the stream of that handle.

        values: looked up by the names that the kernel's description gives its arguments and grid.
        Raises BackendError for a kernel that is not there, or does not fit what it is given.
        """


class Values(Mapping[str, Any]):
    """What a step's kernel is launched with, by name; KeyError for what the op does not have."""

    def __init__(
        self,
        step: Step,
        addresses: Mapping[str, int],
        sizes: Mapping[str, int],
        attributes: Mapping[str, Any],
    ) -> None:
        self._step, self._addresses = step, addresses
        self._sizes, self._attributes = sizes, attributes

    def __getitem__(self, name: str) -> Any:
        text = self._step.values.get(name, name)
        if text in self._addresses:
            return self._addresses[text]
        if text in self._attributes:
            return self._attributes[text]
        return evaluate(text, self._sizes)

    def __iter__(self) -> Any:
        return iter({**self._addresses, **self._sizes, **self._attributes, **self._step.values})

    def __len__(self) -> int:
        return sum(1 for _ in self)


def queue(
    description: Description,
    rows: Rows,
    attributes: Mapping[str, Any],
    shapes: Sequence[Sequence[int]],
    pointers: tuple[Sequence[int], Sequence[int], int],
    target: tuple[Launcher, int],
) -> None:
    """Queue one call of an op.

    rows: the inputs that it is given; shapes: theirs. pointers: of inputs, outputs and workspace.
    target: what launches, and the handle of the stream. Raises what the launcher raises.
    """
    (inputs, outputs, workspace), (launcher, stream) = pointers, target
    sizes = description.all_sizes(rows, shapes, attributes)
    names_in, names_out = pointer_names(description.schema, rows)
    addresses = dict(zip(names_in, inputs, strict=True)) | dict(
        zip(names_out, outputs, strict=True)
    )
    for name, (offset, _) in description.workspace(sizes).items():
        addresses[name] = workspace + offset
    # An input that a node leaves out is a null pointer.
    for row in description.schema.inputs:
        addresses.setdefault(row.name, 0)
    for step in description.steps:
        if step.serves(names_in) and step.runs(sizes):
            kernel = step.kernel.format_map(sizes)
            launcher.launch(kernel, Values(step, addresses, sizes, attributes), stream)


def workspace_bytes(
    description: Description,
    rows: Rows,
    attributes: Mapping[str, Any],
    shapes: Sequence[Sequence[int]],
) -> int:
    """Of memory that a call of these shapes needs beside its inputs and outputs."""
    places = description.workspace(description.all_sizes(rows, shapes, attributes)).values()
    return max((offset + size for offset, size in places), default=0)


def misfit(kernel: str, missing: str) -> BackendError:
    """What to raise where a kernel asks for something that its op does not have."""
    return BackendError(
        f"kernel {kernel} asks for {missing}, which its op does not have: the launch description "
        "is of another release; install tightrope again, or build its kernels again"
    )


def output_shapes(
    description: Description,
    rows: Rows,
    attributes: Mapping[str, Any],
    shapes: Sequence[Sequence[int]],
) -> list[tuple[int, ...]]:
    """Shapes of a call's outputs."""
    sizes, leading = description.all_sizes(rows, shapes, attributes), bound(rows, shapes)[1]
    return [
        tuple(
            length
            for axis in row.axes
            for length in (leading if axis == LEADING else [evaluate(str(axis), sizes)])
        )
        for row in description.schema.outputs
    ]
