"""Answers of llama.cpp, in an environment of its own: `python llama_cpp_peer.py JOBS ANSWERS`.

JOBS is JSON, a list of {"file": GGUF, "texts": [...], "ids": [...] or null}. ANSWERS becomes JSON,
for each job {"tokens": ids of each text, "ends": ids that end an answer, "logits": null or the name
of a .npy file beside it, float32 [ids,vocab]}. Everything is computed in float32 where the file's
weights are.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

_DEFAULTS = llama_cpp.llama_model_default_params


def _as_in_the_file() -> Any:
    """Weights are not laid out anew: for AMX, 0.3.36 then crashes at the first token."""
    params = _DEFAULTS()
    params.use_extra_bufts = False
    return params


def main(jobs: Path, answers: Path) -> None:
    llama_cpp.llama_cpp.llama_model_default_params = _as_in_the_file
    found = []
    for number, job in enumerate(json.loads(jobs.read_text(encoding="utf-8"))):
        found.append(answer(job, answers.with_suffix(f".{number}.npy")))
    answers.write_text(json.dumps(found), encoding="utf-8")


def answer(job: dict[str, Any], logits: Path) -> dict[str, Any]:
    ids = job.get("ids")
    model = llama_cpp.Llama(
        job["file"],
        vocab_only=ids is None,
        n_ctx=len(ids or "x" * 16),
        n_batch=512,
        n_threads=2,
        logits_all=True,
        type_k=llama_cpp.GGML_TYPE_F32,
        type_v=llama_cpp.GGML_TYPE_F32,
        verbose=False,
    )
    vocabulary = llama_cpp.llama_model_get_vocab(model._model.model)
    size = llama_cpp.llama_vocab_n_tokens(vocabulary)
    if ids is not None:
        model.eval(ids)
        np.save(logits, np.array(model.scores[: len(ids)], np.float32))
    return {
        "tokens": [
            model.tokenize(text.encode(), add_bos=True, special=True) for text in job["texts"]
        ],
        "ends": [i for i in range(size) if llama_cpp.llama_vocab_is_eog(vocabulary, i)],
        "logits": None if ids is None else logits.name,
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
