"""Hugging Face's own modelling code, traced into ONNX with one node per own op.

The code is never edited. Two registered attention functions are the seams: in decoder layers q
and k arrive after q-norm and RoPE, and a context variable says which slots the layer reads; in a
tower the attention of one block can be read out. Weights are never touched: models are traced
with fake tensors, and initializers keep the parameters' names.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

import onnx
import onnx_ir as ir
import torch
from onnxscript import values as onnxscript_values
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AttentionInterface

from tightrope.errors import UnsupportedModel
from tightrope.interface import Rows
from tightrope.plugins import select_tokens, slot_attention
from tightrope.plugins.schema import DOMAIN, OPSET_VERSION, OpSchema

ONNX_OPSET = 21
DECODER_ATTENTION = "tightrope"
# transformers hands packed towers their cu_seqlens only if the name contains "flash".
TOWER_ATTENTION = "tightrope_flash_tower"
_EXAMPLE = {"N": 2, "I": 2, "S": 5, "V": 3, "K": 2}
_PICTURE = 4 * 14 * 16
_TORCH = {"T": torch.float16, "float32": torch.float32, "int32": torch.int32, "int64": torch.int64}


@dataclass
class DecoderState:
    """What the decoder's layers read and leave while they are traced."""

    slots: Sequence[tuple[torch.Tensor, ...]]
    """Per layer key, value, score, position."""
    query_position: torch.Tensor
    budget: torch.Tensor
    policy: torch.Tensor
    on_attention: Callable[[int, torch.Tensor, torch.Tensor], None] | None = None
    """Told layer, scaled query and key: in-LLM stages score tokens with them."""
    results: list[tuple[torch.Tensor, ...]] = field(default_factory=list)
    """Per layer key, value, target, score, position."""


class TowerState:
    """Query and key of the attention of block `block` (first: 0), kept for selectors."""

    def __init__(self, block: int) -> None:
        self.block = block
        self.seen = 0
        self.query: torch.Tensor | None = None
        self.key: torch.Tensor | None = None
        self.scaling = 1.0

    def cls_attention(self) -> torch.Tensor:
        """Softmax attention of CLS to every token, mean over heads, float32 [I,1+V]."""
        assert self.query is not None and self.key is not None
        logits = self.query[:, :, :1].float() * self.scaling @ self.key.float().transpose(2, 3)
        return logits.softmax(-1).mean(1)[:, 0]

    def keys(self) -> torch.Tensor:
        """Keys, mean over heads, [I,1+V,dh]."""
        assert self.key is not None
        return self.key.mean(1)


DECODER: ContextVar[DecoderState] = ContextVar("decoder")
TOWER: ContextVar[TowerState] = ContextVar("tower")
State = TypeVar("State")


@contextlib.contextmanager
def known(variable: ContextVar[State], state: State) -> Iterator[None]:
    """Attention that is traced inside finds `state` in DECODER or TOWER."""
    token = variable.set(state)
    try:
        yield
    finally:
        variable.reset(token)


def _attend_slots(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    state, layer = DECODER.get(), module.layer_idx
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    out, target, score, position = torch.ops.tightrope.slot_attention(
        query,
        key,
        value,
        *state.slots[layer],
        state.query_position,
        state.budget[layer : layer + 1],
        state.policy,
        scale,
        softcap or 0.0,
        sliding_window or 0,
    )
    state.results.append((key, value, target, score, position))
    if state.on_attention is not None:
        state.on_attention(layer, query * scale, key)
    return out.transpose(1, 2), None


def _attend_tower(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    state = TOWER.get()
    if state.seen == state.block:
        state.query, state.key, state.scaling = query, key, scaling
    state.seen += 1
    # Matrix product and softmax as they are: TensorRT 10.3 parses no attention operator.
    weight = ((query * scaling) @ key.transpose(2, 3)).float().softmax(-1).to(query.dtype)
    return (weight @ value).transpose(1, 2), None


def _register() -> None:
    AttentionInterface.register(DECODER_ATTENTION, _attend_slots)
    AttentionInterface.register(TOWER_ATTENTION, _attend_tower)
    torch.library.define(
        "tightrope::slot_attention",
        "(Tensor query, Tensor key, Tensor value, Tensor slot_key, Tensor slot_value, "
        "Tensor slot_score, Tensor slot_position, Tensor query_position, Tensor budget, "
        "Tensor policy, float scale, float softcap, int window)"
        " -> (Tensor, Tensor, Tensor, Tensor)",
    )
    torch.library.define(
        "tightrope::select_tokens",
        "(Tensor score, Tensor candidates, Tensor keep_ramp) -> (Tensor, Tensor)",
    )

    @torch.library.register_fake("tightrope::slot_attention")  # type: ignore[untyped-decorator]
    def _(query: Any, key: Any, *rest: Any) -> Any:
        score, position, query_position = rest[3], rest[4], rest[5]
        target = query_position.new_empty(key.shape[:3])
        return torch.empty_like(query), target, torch.empty_like(score), position.clone()

    @torch.library.register_fake("tightrope::select_tokens")  # type: ignore[untyped-decorator]
    def _(score: Any, candidates: Any, keep_ramp: Any) -> Any:
        rows, keep = score.shape[0], keep_ramp.shape[0]
        length = score.shape[1] - candidates.shape[1] + keep
        return candidates.new_empty(rows, length), candidates.new_empty(rows, keep)


_register()


def _node(schema: OpSchema) -> Callable[..., Any]:
    """What torch's exporter calls to emit one node of an own op."""
    formal = onnx.defs.OpSchema.FormalParameter
    types = {"T": "T", "float32": "tensor(float)", "int32": "tensor(int32)"}
    types["int64"] = "tensor(int64)"
    definition = onnx.defs.OpSchema(
        schema.name,
        DOMAIN,
        OPSET_VERSION,
        inputs=[formal(item.name, types[item.dtype]) for item in schema.inputs],
        outputs=[formal(f"{item.name}_out", types[item.dtype]) for item in schema.outputs],
        type_constraints=[("T", ["tensor(float)", "tensor(float16)"], "")],
        attributes=[
            onnx.defs.OpSchema.Attribute(
                name,
                onnx.defs.OpSchema.AttrType.FLOAT
                if isinstance(default, float)
                else onnx.defs.OpSchema.AttrType.INT,
                "",
                required=False,
            )
            for name, default in schema.attributes.items()
        ],
    )
    opset = onnxscript_values.Opset(DOMAIN, OPSET_VERSION)
    emit: Callable[..., Any] = onnxscript_values.Op(opset, schema.name, definition)
    return emit


def _translations() -> dict[Any, Callable[..., Any]]:
    attend = _node(slot_attention.SCHEMA)
    select = _node(select_tokens.SCHEMA)

    def translate_attention(
        query: Any,
        key: Any,
        value: Any,
        slot_key: Any,
        slot_value: Any,
        slot_score: Any,
        slot_position: Any,
        query_position: Any,
        budget: Any,
        policy: Any,
        scale: float,
        softcap: float,
        window: int,
    ) -> Any:
        slots = (slot_key, slot_value, slot_score, slot_position)
        rest = (query_position, budget, policy)
        return attend(query, key, value, *slots, *rest, scale=scale, softcap=softcap, window=window)

    def translate_selection(score: Any, candidates: Any, keep_ramp: Any) -> Any:
        return select(score, candidates, keep_ramp)

    return {
        torch.ops.tightrope.slot_attention.default: translate_attention,
        torch.ops.tightrope.select_tokens.default: translate_selection,
    }


def fake_model(auto_class: Any, config: Any) -> Any:
    """The checkpoint's architecture in float16 without weights; call inside `fake_tensors`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # A copy: tracing names its own attention functions in the config.
        return auto_class.from_config(copy.deepcopy(config), dtype=torch.float16).eval()


def fake_tensors() -> FakeTensorMode:
    """Inside, tensors have shapes and no content."""
    return FakeTensorMode(allow_non_fake_inputs=True)


def trace(
    module: torch.nn.Module, inputs: Rows, outputs: Rows, arguments: Any, patch_size: int = 1
) -> ir.Model:
    """`module` as an ONNX model whose inputs and outputs are called as the rows say.

    arguments: builds the keyword arguments of `module` from one value per input row; it is called
    with example tensors and with their dynamic axes. Call inside `fake_tensors`.
    """
    examples, axes = _examples(inputs, patch_size)
    with warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")
        try:
            program = torch.export.export(
                module, (), arguments(examples), dynamic_shapes=arguments(axes), strict=False
            )
            traced: Any = torch.onnx.export(
                program,
                dynamo=True,
                optimize=False,
                opset_version=ONNX_OPSET,
                custom_translation_table=_translations(),
                verbose=False,
            )
        except Exception as error:  # torch's tracer raises whatever the model's code does
            reason = str(error).strip().partition("\n")[0]
            raise UnsupportedModel(
                f"this model's code cannot be traced with dynamic lengths: {reason}"
            ) from error
    return _named(traced.model, inputs, outputs)


def _examples(rows: Rows, patch_size: int) -> tuple[list[torch.Tensor], list[dict[int, Any]]]:
    """Example tensors and dynamic axes of the rows; every axis name gets a length of its own."""
    lengths = dict(_EXAMPLE)
    names = [axis for row in rows for axis in row.axes if isinstance(axis, str)]
    for name in dict.fromkeys(names):
        # Lengths apart from each other: torch would tie equal ones together.
        lengths.setdefault(name, 7 + len(lengths))
    if "H" in lengths:  # one picture whose patches and CLS fill the position table
        lengths |= {"H": _PICTURE, "W": _PICTURE, "P": (_PICTURE // patch_size) ** 2 + 1}
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
    for value, row in zip(graph.inputs, inputs, strict=True):
        value.name = row.name
    for value, row in zip(graph.outputs, outputs, strict=True):
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
