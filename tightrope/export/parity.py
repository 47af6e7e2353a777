"""Is the bundle the model that it came from? Measured at the end of every export.

The host graphs run in ONNX Runtime on a seeded prompt, prefill and greedy decode, and every step
is compared with Hugging Face's model carrying the very weights that were written, without a
cache. The figure that must hold in float32: logits within max(1e-4, three times the difference
between Hugging Face's own eager and sdpa attention), and equal greedy tokens unless the top two
lie closer than that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch

from tightrope.errors import UnsupportedModel
from tightrope.export.checkpoint import Checkpoint, parameters_of
from tightrope.export.choices import Choices
from tightrope.export.config import ExportConfig
from tightrope.export.weights import WeightFile
from tightrope.interface import Dims

Array = npt.NDArray[Any]
Embed = Callable[[int], Array]
PROMPT_TOKENS, STEPS = 40, 8
_FULL_CACHE = np.array([1, 0, 1, 0, 1, 0, 0, 1], np.float32)  # nothing is given up under it


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prompt:
    """A seeded prompt: text, or text around the tokens of one image."""

    embeds: Array
    """float32 [1,S,E], as the bundle's own graphs and embeddings make it."""
    reference_embeds: torch.Tensor
    """The same from Hugging Face's model."""


def measure(
    folder: Path,
    source: Checkpoint,
    config: ExportConfig,
    choices: Choices,
    model: Any,
    weights: WeightFile,
) -> dict[str, Any]:
    """Figures of the bundle in `folder`; `model` carries the weights as written afterwards.

    Raises UnsupportedModel where float32 parity does not hold.
    """
    rounded = config.precision != "fp32"
    tokens = np.random.default_rng(config.seed).integers(0, choices.dims.vocab_size, PROMPT_TOKENS)
    original = _logits(model, tokens)
    _replace_weights(model, weights)
    embeddings = np.memmap(
        folder / "embeddings.data",
        np.float16 if rounded else np.float32,
        "r",
        shape=(choices.dims.vocab_size, choices.dims.hidden_size),
    )

    def embed(token: int) -> Array:
        return np.asarray(embeddings[token], np.float32)

    figures = _compare(
        folder / "graphs" / "host.decoder.onnx",
        _prompt(folder, source, config, choices, model, embed),
        model,
        choices.dims,
        embed,
        config.precision == "int4",
    )
    if rounded:
        distance = _relative(original, _logits(model, tokens))
        figures["weights as written against the checkpoint (relative)"] = distance
    return figures


def _logits(model: Any, tokens: Array) -> Array:
    """Logits of a text, float32 [S,vocab]: compared, they say what rounding does to the model."""
    with torch.no_grad():
        ids = torch.from_numpy(tokens)[None]
        logits: Array = model.float()(input_ids=ids, use_cache=False).logits[0].numpy()
    return logits


def _relative(expected: Array, measured: Array) -> float:
    """Root mean square of the difference, as a share of that of the logits."""
    return float(np.sqrt(((measured - expected) ** 2).mean() / (expected**2).mean()))


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


def _prompt(
    folder: Path,
    source: Checkpoint,
    config: ExportConfig,
    choices: Choices,
    model: Any,
    embed: Embed,
) -> _Prompt:
    rng = np.random.default_rng(config.seed)
    tokens = rng.integers(0, choices.dims.vocab_size, PROMPT_TOKENS)
    ours = np.stack([embed(int(token)) for token in tokens])[None]
    theirs = model.get_input_embeddings()(torch.from_numpy(tokens)[None])
    vision, adapter = choices.vision, source.family.vision
    if vision is None or adapter is None:
        return _Prompt(embeds=ours, reference_embeds=theirs)
    side = vision.resolutions[0]
    pixels = rng.normal(size=(1, 3, side, side)).astype(np.float32)
    table = adapter.position_table(model, side).numpy()
    graph = session(folder / "graphs" / "host.vision.onnx")
    (seen,) = graph.run(["visual_embeds"], {"pixel_values": pixels, "position_table": table})
    model.set_attn_implementation("eager")
    with torch.no_grad():
        reference = adapter.reference_embeds(model, torch.from_numpy(pixels))
    return _Prompt(
        embeds=np.concatenate([ours[:, :4], seen, ours[:, 4:]], 1),
        reference_embeds=torch.cat([theirs[:, :4], reference, theirs[:, 4:]], 1),
    )


def session(file: Path, accuracy_level: int | None = None) -> onnxruntime.InferenceSession:
    """`file` on the CPU; accuracy_level: how int4 products compute, 1 float32, 4 int8."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if accuracy_level is not None:
        entry = "session.qdq_matmulnbits_accuracy_level"
        options.add_session_config_entry(entry, str(accuracy_level))
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def _compare(
    decoder: Path, prompt: _Prompt, model: Any, dims: Dims, embed: Embed, int4: bool
) -> dict[str, Any]:
    measured = _walk(session(decoder, 1 if int4 else None), prompt.embeds, dims, embed)
    expected, gap = _reference(model, prompt.reference_embeds, measured.tokens)
    difference = float(np.abs(measured.logits - expected).max())
    tolerance = max(1e-4, 3 * gap)
    agreeing = _same_tokens(measured.logits, expected, tolerance)
    figures: dict[str, Any] = {
        "logits against Hugging Face": difference,
        "allowed": tolerance,
        "greedy tokens": f"{agreeing} of {len(expected)} equal",
    }
    if int4:
        fast = _walk(session(decoder), prompt.embeds, dims, embed, measured.tokens)
        figures["int8 activations against float32 (relative)"] = _relative(
            measured.logits, fast.logits
        )
    if difference > tolerance or agreeing < len(expected):
        raise UnsupportedModel(
            f"the exported graph differs from the model by {difference:.1e} in its logits, "
            f"{tolerance:.1e} is allowed: this architecture is not exported faithfully"
        )
    return figures


@dataclass(frozen=True, slots=True)
class _Walk:
    logits: Array
    """float32 [steps,vocab]"""
    tokens: list[int]


def _walk(
    graph: onnxruntime.InferenceSession,
    embeds: Array,
    dims: Dims,
    embed: Embed,
    forced: Sequence[int] | None = None,
) -> _Walk:
    """Prefill, then greedy (or `forced`) steps with a full cache."""
    layers, heads = range(dims.num_hidden_layers), dims.num_key_value_heads
    length = embeds.shape[1]
    capacity = length + STEPS
    keys = np.zeros((len(layers), 1, heads, capacity, dims.head_dim), np.float32)
    values = np.zeros_like(keys)
    score = np.zeros((len(layers), 1, heads, capacity), np.float32)
    position = np.full(score.shape, -1, np.int32)
    names = [output.name for output in graph.get_outputs()]
    rows, tokens, start = [], [], 0
    for step in range(STEPS + 1):
        place = np.arange(start, start + embeds.shape[1])[None]
        used = capacity if step else 0
        feeds = {
            "inputs_embeds": embeds,
            "query_position": place.astype(np.int32),
            "rope_position": place.astype(np.int64),
            "kv_budget": np.full(len(layers), capacity, np.int64),
            "policy": _FULL_CACHE,
        }
        feeds |= {"slot_score": score, "slot_position": position}
        for i in layers:
            feeds[f"slot_key.{i}"] = keys[i][:, :, :used]
            feeds[f"slot_value.{i}"] = values[i][:, :, :used]
        out = dict(zip(names, graph.run(names, feeds), strict=True))
        at = np.ix_(range(len(layers)), range(1), range(heads))
        target = out["target"].astype(np.int64)
        where = (*(index[..., None] for index in at), target)
        keys[where], values[where] = out["key"], out["value"]
        score, position = out["next_score"], out["next_position"]
        start += embeds.shape[1]
        rows.append(out["logits"][0])
        tokens.append(int(rows[-1].argmax()) if forced is None else forced[step])
        embeds = embed(tokens[-1])[None, None]
    return _Walk(np.stack(rows), tokens)


def _reference(model: Any, embeds: torch.Tensor, tokens: list[int]) -> tuple[Array, float]:
    """Logits of the same steps by Hugging Face, and how far eager and sdpa lie apart there."""
    table = model.get_input_embeddings()
    rest = table(torch.tensor([tokens[:-1]])).float()
    whole = torch.cat([embeds.float(), rest], 1)
    results = []
    for attention in ("eager", "sdpa"):
        model.set_attn_implementation(attention)
        with torch.no_grad():
            logits = model(inputs_embeds=whole, use_cache=False).logits[0, -len(tokens) :]
        results.append(logits.float().numpy())
    return results[0], float(np.abs(results[0] - results[1]).max())


def _same_tokens(measured: Array, expected: Array, tolerance: float) -> int:
    """Steps whose greedy tokens agree, or where the expected top two are too close to tell."""
    top = np.sort(expected, -1)
    unclear = top[:, -1] - top[:, -2] <= 2 * tolerance
    return int((unclear | (measured.argmax(-1) == expected.argmax(-1))).sum())
