"""Is the bundle the model that it came from? Measured at the end of every export.

The host graphs run in ONNX Runtime on a seeded prompt, prefill and greedy decode, and every step
is compared with Hugging Face's model carrying the very weights that were written, without a
cache. The figure that must hold in float32: logits within max(1e-4, three times the difference
between Hugging Face's own eager and sdpa attention), and equal greedy tokens unless the top two
lie closer than that.

Of a GGUF file the model itself is held against the file first: the reader that gave its weights
cannot vouch for them, so the logits must be those of the file's tensors, computed without it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import PIL.Image
import torch

from tightrope.arrays import Array, Floats, Ordinals
from tightrope.bundle import EMBEDDINGS, Parity
from tightrope.errors import UnsupportedModel
from tightrope.export.checkpoint import embedding_scale, parameters_of
from tightrope.export.distance import relative, text_logits
from tightrope.export.gguf import oracle
from tightrope.export.gguf.model import GgufModel
from tightrope.export.recipe import Recipe, Vision
from tightrope.export.weights import WeightFile
from tightrope.inputs.embeddings import Embeddings
from tightrope.inputs.layout import ImageTokens, Stream, assemble, reach, visual_tokens
from tightrope.inputs.positions import Rule, find_rule, following
from tightrope.interface.calls import Call, Update, feeds, no_levels, update_of
from tightrope.interface.names import GraphName
from tightrope.interface.tensors import (
    DEEPSTACK,
    INPUTS_EMBEDS,
    QUERY_POSITION,
    VISUAL_EMBEDS,
    Dims,
)
from tightrope.plugins.slot_attention.policies import unbudgeted

PROMPT_TOKENS, STEPS = 40, 8
_STANDARD_STEPS = 2
"""float16 is slow on a CPU, and the first steps show what it rounds away."""
_LEAST_TOLERANCE = 1e-3
_LIKELIEST = 8
_IMAGE_AT = 4
_APART = 16
_READ_ALIKE = 1e-3
"""float32 leaves 1e-4 at most; a bias or a scaling that is lost makes 1e-2 and more."""


def measure(
    recipe: Recipe, model: Any, weights: WeightFile, folder: Path, tower: Path | None = None
) -> Parity:
    """Figures of the bundle in `folder`; `model` carries the weights as written afterwards.

    tower: the graph of the tower in int8, if the bundle is to have it instead.
    Raises UnsupportedModel where float32 parity does not hold.
    """
    rng = np.random.default_rng(recipe.config.seed)
    token_ids = rng.integers(0, recipe.dims.vocab_size, PROMPT_TOKENS)
    rounded = recipe.precision.storage != "float32"
    original = text_logits(model, token_ids)
    read = held_against_file(recipe.checkpoint.gguf, model, token_ids)
    _replace_weights(model, weights)
    graphs = [folder / GraphName("host", "vision").file, *([] if tower is None else [tower])]
    ours, theirs = _prompts(recipe, model, (folder, graphs), token_ids.tolist(), rng)
    figures = _compare(recipe, model, ours, theirs, folder)
    if rounded:
        distance = relative(original, text_logits(model, token_ids))
        figures = replace(figures, stored_weights=distance)
    return replace(figures, read_weights=read)


def held_against_file(opened: GgufModel | None, model: Any, token_ids: Array) -> float | None:
    """Relative difference between `model` and the GGUF file that it was read from; None without.

    Positions lie apart, so that a rotary rule that is misread shows in a short prompt. Raises
    UnsupportedModel where the two are not the same model.
    """
    if opened is None:
        return None
    positions = np.arange(len(token_ids)) * _APART
    with torch.no_grad():
        values = model(
            input_ids=torch.from_numpy(token_ids)[None],
            position_ids=torch.from_numpy(positions)[None],
            # Said, or transformers takes a leap in positions for another text.
            attention_mask=torch.ones(1, len(token_ids), dtype=torch.int64),
            use_cache=False,
        ).logits[0]
    distance = relative(oracle.logits(opened.file, token_ids, positions), values.numpy())
    if not distance < _READ_ALIKE:
        raise UnsupportedModel(
            f"{opened.file.path} was not read as it stands: the logits differ by {distance:.1e} of "
            f"their size from those of the file's own tensors, {_READ_ALIKE:.0e} is allowed; "
            "export the model's Hugging Face folder instead"
        )
    return distance


@dataclass(frozen=True, slots=True)
class _Prompt:
    """A seeded prompt, text or text around one image, as the bundle's graphs take it."""

    stream: Stream
    embed: Embeddings
    rounded: Stream | None = None
    """The same with what a tower in int8 sees."""


Read = Callable[[Sequence[int]], dict[str, torch.Tensor]]
"""What Hugging Face's model is called with for the prompt and these tokens behind it."""


def _prompts(
    recipe: Recipe,
    model: Any,
    files: tuple[Path, Sequence[Path]],
    token_ids: list[int],
    rng: np.random.Generator,
) -> tuple[_Prompt, Read]:
    """The prompt as a bundle takes it, and as Hugging Face's model does.

    files: the bundle's folder and the graphs of its tower.
    """
    folder, graphs = files
    vision = recipe.vision
    embed = Embeddings(
        folder / EMBEDDINGS,
        recipe.precision.storage,
        recipe.dims,
        embedding_scale(model),
        0 if vision is None else vision.info.separators,
    )
    table, known = model.get_input_embeddings(), recipe.dims.vocab_size
    own = None if vision is None else vision.model.separators(model)

    def reference(ids: Sequence[int]) -> Floats:
        rows = [
            table(torch.tensor(token)) if own is None or token < known else own[token - known]
            for token in ids
        ]
        embeds: Floats = torch.stack(rows).float().numpy()
        return embeds

    marker: int | None = None
    images: list[ImageTokens] = []
    inputs: dict[str, Array] = {}
    if vision is not None:
        inputs, images = _seen(recipe, vision, model, graphs, rng)
        marker = vision.info.image_token_id
        token_ids = [token for token in token_ids if token != marker]
        token_ids.insert(_IMAGE_AT, marker)
    theirs = assemble(token_ids, marker, images[:1], reference)
    stream, *rounded = (
        assemble(token_ids, marker, images[place : place + 1], embed)
        for place in range(1, max(2, len(images)))
    )

    def read(answer: Sequence[int]) -> dict[str, torch.Tensor]:
        embeds = np.concatenate([theirs.embeds, reference(answer)])
        return {INPUTS_EMBEDS: torch.from_numpy(embeds)[None]}

    def read_whole(answer: Sequence[int]) -> dict[str, torch.Tensor]:
        ids = [token for run in stream.runs for token in run.ids or [marker] * run.count]
        assert whole is not None
        return whole(model, inputs, torch.tensor([[*ids, *answer]]))

    whole = recipe.checkpoint.family.reference_inputs
    prompt = _Prompt(stream, embed, *rounded)
    return prompt, read if whole is None else read_whole


def _seen(
    recipe: Recipe, vision: Vision, model: Any, graphs: Sequence[Path], rng: np.random.Generator
) -> tuple[dict[str, Array], list[ImageTokens]]:
    """The tower's inputs for one picture; how Hugging Face's tower sees it, and each graph."""
    resolution = vision.info.resolutions[0]
    width, height = size = vision.host.trial_size(resolution)
    picture = PIL.Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
    tables = vision.model.tables(model, vision.info)
    inputs = vision.host.prepare(recipe.preprocessor, tables)([picture], resolution)
    names = [VISUAL_EMBEDS, *([DEEPSTACK] if recipe.dims.deepstack else [])]
    seen = [dict(zip(names, session(file).run(names, inputs), strict=True)) for file in graphs]
    model.set_attn_implementation("eager")
    with torch.no_grad():
        expected = vision.model.reference_embeds(model, inputs).float().numpy()
    layout = vision.host.layout(size, resolution)
    index = np.arange(visual_tokens(layout))
    images = []
    for given in ({VISUAL_EMBEDS: expected}, *seen):
        part = vision.host.tokens(given, size, resolution)
        levels = part[DEEPSTACK][0] if DEEPSTACK in part else None
        images.append(ImageTokens(layout, index, part[VISUAL_EMBEDS][0], levels))
    return inputs, images


def _replace_weights(model: Any, weights: WeightFile) -> None:
    """Give `model` the values that were written."""
    head, table = model.get_output_embeddings(), model.get_input_embeddings()
    replaced: list[torch.Tensor] = []
    if head.weight is table.weight:
        # One parameter under two names; in the graphs it may be int4 while embeddings never are.
        names = [name for name, value in parameters_of(model).items() if value is table.weight]
        written = next(filter(weights.is_quantized, names), names[0])
        head.weight = torch.nn.Parameter(weights.in_graphs(written), requires_grad=False)
        table.weight = torch.nn.Parameter(weights.rounded(written), requires_grad=False)
        replaced = [head.weight, table.weight]
    for name, value in parameters_of(model).items():
        if value.is_floating_point() and not any(value is done for done in replaced):
            value.copy_(weights.in_graphs(name))


def session(file: Path, accuracy_level: int | None = None) -> onnxruntime.InferenceSession:
    """`file` on the CPU; accuracy_level: how int4 products compute, 1 float32, 4 int8."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if accuracy_level is not None:
        entry = "session.qdq_matmulnbits_accuracy_level"
        options.add_session_config_entry(entry, str(accuracy_level))
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def _compare(recipe: Recipe, model: Any, prompt: _Prompt, read: Read, folder: Path) -> Parity:
    decoder, int4 = folder / GraphName("host", "decoder").file, recipe.precision.quantized
    rule = find_rule(recipe.checkpoint.family.positions)
    walk = functools.partial(_walk, dims=recipe.dims, rule=rule)
    graphs = _one_for_both(decoder, 1 if int4 else None)
    measured = walk(graphs, prompt)
    expected, gap = _reference(model, read, measured.tokens)
    difference = float(np.abs(measured.logits - expected).max())
    tolerance = max(1e-4, 3 * gap)
    agreeing = _same_tokens(measured.logits, expected, tolerance)
    if difference > tolerance or agreeing < len(expected):
        raise UnsupportedModel(
            f"the exported graph differs from the model by {difference:.1e} in its logits, "
            f"{tolerance:.1e} is allowed: this architecture is not exported faithfully"
        )
    fast = walk(_one_for_both(decoder), prompt, forced=measured.tokens) if int4 else None
    standard = walk(_standard(folder), prompt, forced=measured.tokens[: _STANDARD_STEPS + 1])
    tower = None
    if prompt.rounded is not None:
        seen = replace(prompt, stream=prompt.rounded)
        tower = walk(graphs, seen, forced=measured.tokens)
    others = [other.logits for other in (fast, standard, tower) if other is not None]
    moved = sum(_moved(measured.logits, rows) for rows in others)
    return Parity(
        logits=difference,
        allowed=tolerance,
        equal_tokens=agreeing,
        tokens=len(expected),
        int8_activations=None if fast is None else relative(measured.logits, fast.logits),
        int8_tower=None if tower is None else relative(measured.logits, tower.logits),
        tolerance=max(_LEAST_TOLERANCE, 2 * moved),
    )


def _moved(measured: Floats, other: Floats) -> float:
    """Largest difference of the likeliest tokens' logits, over the steps of `other`."""
    measured = measured[: len(other)]
    top = np.argsort(-measured, axis=1)[:, :_LIKELIEST]
    apart: float = np.abs(np.take_along_axis(measured - other, top, axis=1)).max()
    return float(apart)


@dataclass(frozen=True, slots=True)
class _Graphs:
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


def _one_for_both(file: Path, accuracy_level: int | None = None) -> _Graphs:
    graph = session(file, accuracy_level)
    return _Graphs(graph, graph)


def _standard(folder: Path) -> _Graphs:
    """The graphs for TensorRT, with its rounding, though not by its kernels."""
    prefill, decode = (
        session(folder / GraphName("standard", role).file) for role in ("prefill", "decode")
    )
    return _Graphs(prefill, decode)


@dataclass(frozen=True, slots=True)
class _Walk:
    logits: Floats
    """float32 [steps,vocab]"""
    tokens: list[int]


class _Cache:
    """A full cache for one row: what the runtime does with slots, without its economies."""

    def __init__(self, dims: Dims, capacity: int) -> None:
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
        self._keys[where], self._values[where] = update.key, update.value
        self.score, self.position = update.next_score, update.next_position
        self.conv_state = update.next_conv_state
        self.used = self.score.shape[3]


def _walk(
    graphs: _Graphs,
    prompt: _Prompt,
    dims: Dims,
    rule: Rule,
    forced: Sequence[int] | None = None,
) -> _Walk:
    """Prefill, then greedy (or `forced`) steps with a full cache."""
    stream, layers = prompt.stream, dims.num_hidden_layers
    capacity = len(stream.ordinals) + STEPS
    cache = _Cache(dims, capacity)
    embeds, ordinals = stream.embeds[None], stream.ordinals[None]
    rope = rule(stream.runs, stream.ordinals, 0)
    levels = no_levels(dims, 1, len(stream.ordinals))
    if stream.deepstack is not None:
        levels = stream.deepstack[None]
    ends = reach(stream)[None]
    positions, rows, tokens = rope.positions[..., None, :], [], list[int]()
    for step in range(STEPS + 1 if forced is None else len(forced)):
        call = Call(
            embeds=embeds,
            query_position=ordinals,
            rope_position=positions,
            kv_budget=np.full((layers, dims.num_key_value_heads), capacity, np.int64),
            policy=unbudgeted(layers),
            deepstack=levels,
            query_reach=ends if dims.reach else None,
        )
        logits, update = update_of(graphs.run(feeds(call, cache)))
        cache.commit(update)
        rows.append(logits[0])
        tokens.append(int(rows[-1].argmax()) if forced is None else forced[step])
        embeds, levels = prompt.embed(tokens[-1:])[None], no_levels(dims, 1, 1)
        ordinals = ends = np.array([[stream.next_ordinal + step]], np.int32)
        positions = following(ordinals, rope.delta, dims.rope_axes)
    return _Walk(np.stack(rows), tokens)


def _reference(model: Any, read: Read, tokens: list[int]) -> tuple[Floats, float]:
    """Logits of the same steps by Hugging Face, and how far eager and sdpa lie apart there.

    Models whose attention scores are capped have no sdpa: the least tolerance then holds alone.
    """
    results = []
    for attention in ("eager", "sdpa") if model._supports_sdpa else ("eager",):
        model.set_attn_implementation(attention)
        with torch.no_grad():
            logits = model(**read(tokens[:-1]), use_cache=False).logits[0, -len(tokens) :]
        results.append(logits.float().numpy())
    return results[0], float(np.abs(results[0] - results[-1]).max())


def _same_tokens(measured: Floats, expected: Floats, tolerance: float) -> int:
    """Steps whose greedy tokens agree, or where the expected top two are too close to tell."""
    top = np.sort(expected, -1)
    unclear = top[:, -1] - top[:, -2] <= 2 * tolerance
    return int((unclear | (measured.argmax(-1) == expected.argmax(-1))).sum())
