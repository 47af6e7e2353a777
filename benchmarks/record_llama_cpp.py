"""Record what llama.cpp makes of small vocabularies, for tests that run without it.

    python benchmarks/record_llama_cpp.py tests/export/gguf/llama_cpp.json

One name of each pre-tokenizer and the variants of the model `llama`, over texts of many scripts.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import llama_cpp_environment as peer
from texts import texts

from tightrope.export.gguf.pretokenizers import PRETOKENIZERS

sys.path.insert(0, str(peer.ROOT / "tests"))
import gguf_files

SPECIALS = ("<|end|>", "<s>")
FLAGS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "no prefix": {"tokenizer.ggml.add_space_prefix": False},
    "no beginning, an end": {
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.add_eos_token": True,
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    peer.make()
    asked = [text[:48] for text in texts(56)]
    asked += ["", " ", "a<|end|> b", "<s>x<s>", " ~~ a~~b ", "</s> </s>", "▁a ▁", "a\u2028b\u3000c"]
    bytes_ = gguf_files.metadata_of(gguf_files.byte_level(SPECIALS, 420))
    ids = {"tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 0}
    cases = {
        name: {**bytes_, **ids, "tokenizer.ggml.pre": name}
        for name in {entry: name for name, entry in PRETOKENIZERS.items()}.values()
    }
    pieces = gguf_files.sentencepiece(gguf_files.pieces(420), ["<|u|>", "~~"])
    cases |= {f"llama, {name}": pieces | flags for name, flags in FLAGS.items()}
    with tempfile.TemporaryDirectory() as folder:
        jobs = []
        for number, metadata in enumerate(cases.values()):
            config = gguf_files.config_of(
                "llama", vocab_size=len(metadata["tokenizer.ggml.tokens"])
            )
            file = Path(folder) / f"{number}.gguf"
            gguf_files.file_of(file, gguf_files.model_of(config), metadata)
            jobs.append({"file": str(file), "texts": asked})
        answers = peer.ask(jobs)
    recorded = {
        "llama-cpp-python": peer.version(),
        "texts": asked,
        "vocabularies": {"gpt2": bytes_ | ids, "llama": pieces},
        # A digest of each text's ids is enough to tell where they differ.
        "digests": {
            name: [gguf_files.digest(ids) for ids in answer["tokens"]]
            for name, answer in zip(cases, answers, strict=True)
        },
    }
    text = json.dumps(recorded, ensure_ascii=False, separators=(",", ":"))
    arguments.target.write_text(text + "\n", encoding="utf-8")
    print(f"{arguments.target}: {len(cases)} tokenizers, {len(asked)} texts, {len(text)} bytes")


if __name__ == "__main__":
    main()
