"""A torch module as an ONNX model with the inputs and outputs of the interface's tables.

Weights are never touched: models are traced with fake tensors, and initializers keep the
parameters' names.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers.initialization import no_init_weights

from tightrope.errors import UnsupportedModel
from tightrope.export.tracing.ops import register, translations
from tightrope.interface.onnx import OPSET
from tightrope.interface.tensors import Rows

_EXAMPLE = {"N": 2, "I": 2, "S": 5, "V": 3, "K": 2}
_TORCH = {"activation": torch.float16, "float32": torch.float32}
_TORCH |= {"int32": torch.int32, "int64": torch.int64}


def fake_model(auto_class: Any, config: Any) -> Any:
    """The checkpoint's architecture in float16 without weights; call inside `fake_tensors`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Values are nobody's, and drawing some of them takes numbers that a fake tensor has not.
        # A copy: tracing names its own attention functions in the config.
        with no_init_weights():
            model = auto_class.from_config(copy.deepcopy(config), dtype=torch.float16)
    return model.eval()


def fake_tensors() -> FakeTensorMode:
    """Inside, tensors have shapes and no content."""
    register()
    return FakeTensorMode(allow_non_fake_inputs=True)


def trace(
    module: torch.nn.Module,
    inputs: Rows,
    outputs: Rows,
    lengths: Mapping[str, int] | None = None,
) -> ir.Model:
    """`module` as an ONNX model whose inputs and outputs are called as the rows say.

    Its `forward` has a parameter of each row's name; rows that differ in their number alone are
    one parameter, a list. lengths: of axes that must fit each other. Call inside `fake_tensors`.
    """
    examples, axes = _examples(inputs, lengths or {})
    with warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")
        try:
            program = torch.export.export(
                module,
                (),
                _arguments(inputs, examples),
                dynamic_shapes=_arguments(inputs, axes),
                strict=False,
            )
            traced: Any = torch.onnx.export(
                program,
                dynamo=True,
                optimize=False,
                opset_version=OPSET,
                custom_translation_table=translations(),
                verbose=False,
            )
        except Exception as error:  # torch's tracer raises whatever the model's code does
            reason = str(error).strip().partition("\n")[0]
            raise UnsupportedModel(
                f"this model's code cannot be traced with dynamic lengths: {reason}"
            ) from error
    return _named(traced.model, inputs, outputs)


def _examples(
    rows: Rows, given: Mapping[str, int]
) -> tuple[list[torch.Tensor], list[dict[int, Any]]]:
    """Example tensors and dynamic axes of the rows; every axis name gets a length of its own."""
    lengths = _EXAMPLE | dict(given)
    names = [axis for row in rows for axis in row.axes if isinstance(axis, str)]
    for name in dict.fromkeys(names):
        # Lengths apart from each other: torch would tie equal ones together.
        lengths.setdefault(name, 7 + len(lengths))
    examples = [
        torch.zeros(
            [lengths[axis] if isinstance(axis, str) else axis for axis in row.axes],
            dtype=_TORCH[row.dtype],
        )
        for row in rows
    ]
    axes = [
        {i: torch.export.Dim.DYNAMIC for i, axis in enumerate(row.axes) if isinstance(axis, str)}
        for row in rows
    ]
    return examples, axes


def _arguments(rows: Rows, values: Sequence[Any]) -> dict[str, Any]:
    """Values by parameter: those of slot_key.0, slot_key.1, ... are the list slot_key."""
    arguments: dict[str, Any] = {}
    for row, value in zip(rows, values, strict=True):
        name, dot, _ = row.name.partition(".")
        if dot:
            arguments.setdefault(name, []).append(value)
        else:
            arguments[name] = value
    return arguments


def _named(model: ir.Model, inputs: Rows, outputs: Rows) -> ir.Model:
    graph = model.graph
    assert len(graph.inputs) == len(inputs), "the rows list every input"
    assert len(graph.outputs) == len(outputs), "the rows list every output"
    for place, value in enumerate(graph.outputs):
        # An output that is an input or an output twice gets a value of its own.
        if value.producer() is None or value in graph.outputs[:place]:
            node = ir.Node("", "Identity", [value])
            node.outputs[0].type = value.type
            graph.append(node)
            graph.outputs[place] = node.outputs[0]
    for value, row in zip((*graph.inputs, *graph.outputs), (*inputs, *outputs), strict=True):
        value.name = row.name
    set_axes(model, (*inputs, *outputs))
    for initializer in list(graph.initializers.values()):
        initializer.const_value = None
    return model


def set_axes(model: ir.Model, rows: Rows) -> None:
    """Note the axes of inputs and outputs in the model, where no pass loses them."""
    for row in rows:
        model.metadata_props[f"axes {row.name}"] = " ".join(str(axis) for axis in row.axes)


def axes_of(model: ir.Model, name: str) -> list[str]:
    """What `set_axes` noted for one input or output."""
    noted: str = model.metadata_props[f"axes {name}"]
    return noted.split()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """torch's exporter and the passes warn of what is on purpose: no torchvision, no weights."""
    loggers = [
        logging.getLogger(name) for name in ("torch.onnx", "torch.fx", "onnx_ir", "onnxscript")
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def parameter_name(initializer: str, prefix: str = "model.") -> str:
    """Hugging Face's name of an initializer that was traced inside a wrapper's `model`."""
    return initializer.removeprefix(prefix)
