"""The graphs of a bundle walked through: a prompt, then greedy steps, with nothing given up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from tightrope.arrays import Array, Floats, Ordinals
from tightrope.inputs.embeddings import Embeddings
from tightrope.inputs.layout import Stream, reach
from tightrope.inputs.positions import Rule, following
from tightrope.interface.calls import Call, Selection, Update, feeds, no_levels, update_of
from tightrope.interface.names import GraphName
from tightrope.interface.tensors import FLOAT_SLOTS, INT8_SLOTS, QUERY_POSITION, Dims
from tightrope.plugins.commit.reference import from_int8, to_int8
from tightrope.plugins.slot_attention.policies import unbudgeted

STEPS = 8
_FOLDER = "session.model_external_initializers_file_folder_path"
IN_FLOAT32, IN_INT8 = 1, 4
"""Accuracy levels of products with codes."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A seeded prompt, text or text around one image, as the bundle's graphs take it."""

    stream: Stream
    embed: Embeddings
    rounded: Stream | None = None
    """The same with what a tower in int8 sees."""


def session(
    file: Path,
    accuracy_level: int | None = None,
    content: bytes | None = None,
    order: onnxruntime.ExecutionOrder = onnxruntime.ExecutionOrder.DEFAULT,
) -> onnxruntime.InferenceSession:
    """`file` on the CPU; accuracy_level: how int4 products compute, 1 float32, 4 int8.

    None: of a graph without such products. Its weights then stay mapped: each is widened when it
    is multiplied, and neither folded nor packed, which would take twice their size and more.
    content: of the graph, where it is not what the file says. order: of its nodes.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = False
    options.execution_order = order
    options.add_session_config_entry(_FOLDER, str(file.parent))
    disabled = []
    if accuracy_level is not None:
        entry = "session.qdq_matmulnbits_accuracy_level"
        options.add_session_config_entry(entry, str(accuracy_level))
    else:
        options.add_session_config_entry("session.disable_prepacking", "1")
        disabled = ["ConstantFolding", "FuseFp16InitializerToFp32NodeTransformer"]
    return onnxruntime.InferenceSession(
        str(file) if content is None else content,
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=disabled,
    )


@dataclass(frozen=True, slots=True)
class Graphs:
    """A decoder: a graph that reads prompts, and one that makes single steps."""

    prefill: onnxruntime.InferenceSession
    decode: onnxruntime.InferenceSession

    def run(self, named: dict[str, Array]) -> dict[str, Array]:
        """Outputs by name, of those of `named` that the graph reads; floats are float32 outside."""
        graph = self.prefill if named[QUERY_POSITION].shape[1] > 1 else self.decode
        given = {
            item.name: named[item.name].astype(np.float16)
            if item.type == "tensor(float16)"
            else named[item.name]
            for item in graph.get_inputs()
        }
        names = [output.name for output in graph.get_outputs()]
        outputs = zip(names, graph.run(names, given), strict=True)
        return {
            name: value.astype(np.float32) if value.dtype == np.float16 else value
            for name, value in outputs
        }


def one_for_both(file: Path, accuracy_level: int | None) -> Graphs:
    """The host's decoder; None: its branches, each by itself.

    What widens weights stands before the branches, so that a runtime that folds it holds them once.
    Where nothing is folded all of them would be widened before the first product.
    """
    if accuracy_level is None:
        model = onnx.load(file, load_external_data=False)
        decode, prefill = (
            session(file, content=_branch(model, name)) for name in ("then_branch", "else_branch")
        )
        return Graphs(prefill, decode)
    graph = session(file, accuracy_level)
    return Graphs(graph, graph)


def _branch(model: onnx.ModelProto, name: str) -> bytes:
    """A branch of the If that a host's decoder is, with what stands before it."""
    alone = onnx.ModelProto()
    alone.CopyFrom(model)
    graph = alone.graph
    (choice,) = (node for node in model.graph.node if node.op_type == "If")
    (taken,) = (entry.g for entry in choice.attribute if entry.name == name)
    graph.node.remove(choice)
    graph.node.extend(taken.node)
    graph.initializer.extend(taken.initializer)
    for inner, outer in zip(taken.output, choice.output, strict=True):
        graph.node.add(op_type="Identity", input=[inner.name], output=[outer])
    content: bytes = alone.SerializeToString()
    return content


def standard(
    folder: Path, content: Callable[[Path], bytes] | None = None, schedule: str = ""
) -> Graphs:
    """The graphs for TensorRT, with its rounding, though not by its kernels.

    content: what is opened in the place of a file, where it is not what that says. schedule: whose
    graph reads prompts; it makes no steps.
    What ONNX Runtime adds to them, as it multiplies in float32, are their last nodes: by its own
    order all weights would be widened before the first product.
    """
    by_place = onnxruntime.ExecutionOrder.PRIORITY_BASED
    names = [GraphName("standard", "prefill", schedule)]
    if not schedule:
        names.append(GraphName("standard", "decode"))
    opened = []
    for name in names:
        file = folder / name.file
        told = None if content is None else content(file)
        opened.append(session(file, content=told, order=by_place))
    return Graphs(opened[0], opened[-1])


@dataclass(frozen=True, slots=True)
class Walk:
    logits: Floats
    """float32 [steps,vocab]"""
    tokens: list[int]


class _Cache:
    """A full cache for one row: what the runtime does with slots, without its economies."""

    def __init__(self, dims: Dims, capacity: int, kv_cache: str = FLOAT_SLOTS) -> None:
        self._kv_cache = kv_cache
        self._layers = range(dims.num_hidden_layers)
        lanes = (len(self._layers), 1, dims.num_key_value_heads, capacity)
        self._keys, self._values = np.zeros((2, *lanes, dims.head_dim), np.float32)
        self.score, self.position = np.zeros(lanes, np.float32), np.full(lanes, -1, np.int32)
        state = (dims.conv_layers, 1, dims.hidden_size, dims.conv_inputs)
        self.conv_state: Array | None = np.zeros(state, np.float32) if dims.conv_layers else None
        self.used = 0

    @property
    def keys(self) -> list[Array]:
        return [self._keys[i][:, :, : self.used] for i in self._layers]

    @property
    def values(self) -> list[Array]:
        return [self._values[i][:, :, : self.used] for i in self._layers]

    def commit(self, update: Update) -> None:
        assert isinstance(update.target, np.ndarray)
        target: Ordinals = update.target
        layer, row, head = np.ogrid[tuple(slice(length) for length in target.shape[:3])]
        where = layer[..., None], row[..., None], head[..., None], target
        assert isinstance(update.key, np.ndarray) and isinstance(update.value, np.ndarray)
        for held, rows in ((self._keys, update.key), (self._values, update.value)):
            held[where] = from_int8(*to_int8(rows)) if self._kv_cache == INT8_SLOTS else rows
        self.score, self.position = update.next_score, update.next_position
        self.conv_state = update.next_conv_state
        self.used = self.score.shape[3]


def walk(
    graphs: Graphs,
    prompt: Prompt,
    dims: Dims,
    rule: Rule,
    forced: Sequence[int] | None = None,
    kv_cache: str = FLOAT_SLOTS,
) -> Walk:
    """Prefill, then greedy (or `forced`) steps with a full cache that is kept in `kv_cache`."""
    call, delta = opening(prompt, dims, rule)
    cache = _Cache(dims, _capacity(prompt), kv_cache)
    rows, tokens = [], list[int]()
    for step in range(STEPS + 1 if forced is None else len(forced)):
        logits, update = update_of(graphs.run(feeds(call, cache)))
        cache.commit(update)
        rows.append(logits[0])
        tokens.append(int(rows[-1].argmax()) if forced is None else forced[step])
        ordinals = np.array([[prompt.stream.next_ordinal + step]], np.int32)
        call = replace(
            call,
            embeds=prompt.embed(tokens[-1:])[None],
            query_position=ordinals,
            rope_position=following(ordinals, delta, dims.rope_axes),
            deepstack=no_levels(dims, 1, 1),
            query_reach=ordinals if dims.reach else None,
        )
    return Walk(np.stack(rows), tokens)


def opening(
    prompt: Prompt, dims: Dims, rule: Rule, selection: Selection | None = None
) -> tuple[Call, int]:
    """The call that reads a prompt, and what later rotary positions lie apart from ordinals."""
    stream, layers = prompt.stream, dims.num_hidden_layers
    rope = rule(stream.runs, stream.ordinals, 0)
    levels = no_levels(dims, 1, len(stream.ordinals))
    call = Call(
        embeds=stream.embeds[None],
        query_position=stream.ordinals[None],
        rope_position=rope.positions[..., None, :],
        kv_budget=np.full((layers, dims.num_key_value_heads), _capacity(prompt), np.int64),
        policy=unbudgeted(layers),
        selection=selection,
        deepstack=levels if stream.deepstack is None else stream.deepstack[None],
        query_reach=reach(stream)[None] if dims.reach else None,
    )
    return call, rope.delta


def read(
    graphs: Graphs, prompt: Prompt, dims: Dims, rule: Rule, selection: Selection
) -> dict[str, Array]:
    """What a schedule's graph gives for a prompt, on empty slots."""
    call, _ = opening(prompt, dims, rule, selection)
    return graphs.run(feeds(call, _Cache(dims, _capacity(prompt))))


def _capacity(prompt: Prompt) -> int:
    return len(prompt.stream.ordinals) + STEPS
