"""What is read of a GGUF file beside llama.cpp itself: tokens, end tokens, logits.

    python benchmarks/gguf_tokens.py models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf

200 texts of many scripts go through both tokenizers. Logits are compared on the file's weights in
float32, which the package gguf writes into a copy, so that neither side's quantised arithmetic is
in the way. llama.cpp runs in an environment of its own, made in .cache/peers the first time.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import gguf
import llama_cpp_environment as peer
import numpy as np
import torch
from measuring import record
from texts import texts

from tightrope.export.checkpoint import open_checkpoint

CONTEXT = 384


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gguf")
    parser.add_argument("--texts", type=int, default=200)
    arguments = parser.parse_args()
    peer.make()
    asked = texts(arguments.texts)
    opened = open_checkpoint(arguments.gguf)
    tokenizer = opened.tokenizer().backend_tokenizer
    ours = [tokenizer.encode(text).ids for text in asked]
    ids = [token for tokens in ours for token in tokens][:CONTEXT]
    with tempfile.TemporaryDirectory() as folder:
        plain = in_float32(Path(arguments.gguf), Path(folder) / "plain.gguf")
        jobs = [
            {"file": arguments.gguf, "texts": asked},
            {"file": str(plain), "texts": [], "ids": ids},
        ]
        theirs, computed = peer.ask(jobs)
    model = opened.load_model()
    with torch.no_grad():
        logits = model(torch.tensor([ids]), use_cache=False).logits[0].numpy()
    record(
        "gguf_tokens",
        {
            "llama-cpp-python": peer.version(),
            "file": Path(arguments.gguf).name,
            "texts": len(asked),
            "texts with equal tokens": sum(
                a == b for a, b in zip(ours, theirs["tokens"], strict=True)
            ),
            "tokens": sum(map(len, ours)),
            "end tokens": {"tightrope": sorted(opened.end_ids(model)), "llama.cpp": theirs["ends"]},
            "logits": distance(logits, computed["logits"]),
        },
    )


def distance(ours: Any, theirs: Any) -> dict[str, float]:
    """Of logits [S,vocab] in float32 on both sides."""
    scale = float(np.sqrt((theirs**2).mean()))
    return {
        "positions": len(ours),
        "relative difference": float(np.sqrt(((ours - theirs) ** 2).mean())) / scale,
        "largest difference": float(np.abs(ours - theirs).max()),
        "equal greedy tokens": int((ours.argmax(-1) == theirs.argmax(-1)).sum()),
    }


def in_float32(file: Path, copy: Path) -> Path:
    """The same file with its tensors dequantised."""
    reader = gguf.GGUFReader(file)
    writer = gguf.GGUFWriter(copy, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):
            continue
        kind, *inner = field.types
        options = {"sub_type": inner[-1]} if kind == gguf.GGUFValueType.ARRAY else {}
        writer.add_key_value(name, field.contents(), kind, **options)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, gguf.dequantize(tensor.data, tensor.tensor_type))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return copy


if __name__ == "__main__":
    main()
