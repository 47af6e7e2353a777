"""How far from its weights in float32 do a GGUF file's own codes lie, here and in llama.cpp?

    python benchmarks/gguf_codes.py models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf

An export in int4 keeps the file's codes, and both sides round activations to int8. Compared are the
logits behind each of some prompts. What minima cost, a correction beside each product, is counted
in bytes and in operations a token. llama.cpp runs in an environment of its own, made in
.cache/llama-cpp the first time.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llama_cpp_environment as peer
import numpy as np
import onnx
import torch
from measuring import record
from texts import texts

import tightrope as tr
from tightrope.arrays import Floats
from tightrope.export.checkpoint import open_checkpoint
from tightrope.export.distance import relative
from tightrope.export.graphs.passes.linear import OF_CODES
from tightrope.inputs.layout import assemble
from tightrope.interface.names import GraphName
from tightrope.runtime.cancel import Cancel
from tightrope.runtime.conversation import Conversation
from tightrope.runtime.loaded import Loaded
from tightrope.runtime.settings import resolve

PROMPTS, TOKENS = 16, 48
_FIRST = "The history of the steam engine begins with"
_BITS = {
    onnx.TensorProto.INT4: 4,
    onnx.TensorProto.INT8: 8,
    onnx.TensorProto.FLOAT16: 16,
    onnx.TensorProto.FLOAT: 32,
    onnx.TensorProto.INT64: 64,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gguf")
    arguments = parser.parse_args()
    peer.make()
    opened = open_checkpoint(arguments.gguf)
    tokenizer = opened.tokenizer().backend_tokenizer
    asked = [tokenizer.encode(text).ids[:TOKENS] for text in (_FIRST, *texts(4 * PROMPTS))]
    prompts = [ids for ids in asked if len(ids) >= 8][: PROMPTS + 1]
    late = opened.late_model()
    with late.computing(), torch.no_grad():
        wanted = [late.model(torch.tensor([ids]), use_cache=False).logits[0, -1] for ids in prompts]
    expected = np.stack([row.numpy() for row in wanted])
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "codes.bundle"
        summary = tr.export(arguments.gguf, bundle, tr.ExportConfig(precision="int4"))
        sides = {"tightrope": ours(bundle, prompts), "llama.cpp": theirs(arguments.gguf, prompts)}
        counted = corrections(bundle / GraphName("host", "decoder").file)
    record(
        "gguf_codes",
        {
            "file": Path(arguments.gguf).name,
            "llama-cpp-python": peer.version(),
            "prompts": len(prompts),
            "logit error": {
                side: {
                    "of all prompts": relative(expected, found),
                    "of the first": relative(expected[:1], found[:1]),
                    "equal greedy tokens": int((expected.argmax(-1) == found.argmax(-1)).sum()),
                }
                for side, found in sides.items()
            },
            "stored": {name: group.stored for name, group in summary.weights.items()},
            "corrections": counted,
        },
    )


def ours(bundle: Path, prompts: Sequence[list[int]]) -> Floats:
    """Logits behind each prompt, float32 [prompts,vocab]."""
    model = tr.load(bundle, live=False)
    loaded = Loaded(model.bundle, model.backend, time.perf_counter)
    settings, rows = resolve(None, loaded.manifest), []
    for ids in prompts:
        stream = assemble(ids, None, (), loaded.embeddings)
        *_, logits = Conversation(loaded).read(stream, 0, settings, Cancel())
        rows.append(np.array(logits[0], np.float32))
    return np.stack(rows)


def theirs(gguf: str, prompts: Sequence[list[int]]) -> Floats:
    """The same of llama.cpp."""
    answers = peer.ask([{"file": gguf, "texts": [], "ids": ids} for ids in prompts])
    return np.stack([answer["logits"][-1] for answer in answers])


def corrections(decoder: Path) -> dict[str, Any]:
    """Bytes of the host's matrices in codes, and operations of a token, with their corrections."""
    graph = onnx.load(decoder, load_external_data=False).graph
    (choice,) = (node for node in graph.node if node.op_type == "If")
    general = next(entry.g for entry in choice.attribute if entry.name == "else_branch")
    tensors = {
        tensor.name.removeprefix(f"{general.name}/"): tensor
        for tensor in (*graph.initializer, *general.initializer)
    }
    shapes = {name: list(tensor.dims) for name, tensor in tensors.items()}
    sizes, operations = Counter[str](), Counter[str]()
    for name, shape in shapes.items():
        matrix, _, layout = name.rpartition(".")
        if layout not in OF_CODES or f"{matrix}.codes" not in shapes:
            continue
        sizes[layout] += math.prod(shape) * _BITS[tensors[name].data_type] // 8
        if layout == "codes":
            operations["products"] += 2 * math.prod(shape)
        if layout == "shift":
            inputs = shapes[f"{matrix}.codes"][0]
            operations["corrections"] += inputs + 2 * math.prod(shape)
    return {
        "bytes": dict(sizes),
        "bytes of corrections, share": sizes["shift"] / sizes.total(),
        "operations a token": dict(operations),
        "operations of corrections, share": operations["corrections"] / operations.total(),
    }


if __name__ == "__main__":
    main()
