"""SmolLM2-135M-Instruct beside llama.cpp on the same file, in one run, step by step in turn.

    pip install llama-cpp-python
    python benchmarks/against_llama_cpp.py BUNDLE models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf

Decode speed at greedy, both on the same number of threads; precisions differ and are named: the
file is Q4_1 (asymmetric int4), the bundle symmetric int4 made from it. The logit error of each is
taken against the file's weights in float32 (Hugging Face's model), if torch is installed.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from measuring import record, spread

import tightrope as tr

PROMPT = "The history of the steam engine begins with"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("gguf")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--prompt-tokens", type=int, default=256)
    parser.add_argument("--repetitions", type=int, default=7)
    arguments = parser.parse_args()
    import llama_cpp

    model = tr.load(arguments.bundle, threads=arguments.threads)
    peer = llama_cpp.Llama(
        arguments.gguf,
        n_ctx=1024,
        n_threads=arguments.threads,
        n_threads_batch=arguments.threads,
        verbose=False,
        logits_all=False,
    )
    ids = model.token_ids(PROMPT)
    rng = np.random.default_rng(0)
    vocab = model.bundle.manifest.dims.vocab_size
    prompt = rng.integers(100, vocab, arguments.prompt_tokens).tolist()
    ours: dict[str, list[float]] = {"decode": [], "prefill": []}
    theirs: dict[str, list[float]] = {"decode": [], "prefill": []}
    for repetition in range(arguments.repetitions + 1):
        mine = _ours(model, prompt, arguments.tokens)
        other = _theirs(peer, prompt, arguments.tokens)
        if repetition:  # the first one warms up
            for name in ours:
                ours[name].append(mine[name])
                theirs[name].append(other[name])
    ratios = {
        name: spread([a / b for a, b in zip(ours[name], theirs[name], strict=True)])
        for name in ours
    }
    record(
        "against_llama_cpp",
        {
            "threads": arguments.threads,
            "precision": {
                "tightrope": f"{model.bundle.manifest.precision}, int8 activations",
                "llama.cpp": "Q4_1, int8 activations",
            },
            "tokens a second, tightrope": {name: spread(value) for name, value in ours.items()},
            "tokens a second, llama.cpp": {name: spread(value) for name, value in theirs.items()},
            "tightrope / llama.cpp": ratios,
            "logit error": _errors(model, peer, arguments.gguf, ids),
        },
    )


def _ours(model: Any, prompt: list[int], tokens: int) -> dict[str, float]:
    answer = model.generate(prompt, max_tokens=tokens, ignore_eos=True)
    return {
        "decode": (tokens - 1) / answer.timings.decode_ms * 1e3,
        "prefill": len(prompt) / answer.timings.prefill_ms * 1e3,
    }


def _theirs(peer: Any, prompt: list[int], tokens: int) -> dict[str, float]:
    peer.reset()
    started = time.perf_counter()
    peer.eval(prompt)
    token = int(np.argmax(peer.eval_logits[-1] if peer.eval_logits else _last(peer)))
    read = time.perf_counter()
    for _ in range(tokens - 1):
        peer.eval([token])
        token = int(np.argmax(_last(peer)))
    return {
        "decode": (tokens - 1) / (time.perf_counter() - read),
        "prefill": len(prompt) / (read - started),
    }


def _last(peer: Any) -> Any:
    """Logits after the last token, straight from the library, without a copy of all."""
    import llama_cpp

    pointer = llama_cpp.llama_get_logits_ith(peer._ctx.ctx, -1)
    return np.ctypeslib.as_array(pointer, shape=(peer.n_vocab(),))


def _errors(model: Any, peer: Any, gguf: str, ids: list[int]) -> dict[str, Any]:
    """Root mean square of the difference of logits, over that of the logits, after a prompt."""
    try:
        from tightrope.export.checkpoint import open_checkpoint
    except ModuleNotFoundError:
        return {"not measured": "torch is not installed"}
    import torch

    from tightrope.runtime.backends.backend import Cancel
    from tightrope.runtime.conversation import Conversation, assemble
    from tightrope.runtime.settings import resolve

    reference = open_checkpoint(gguf).load_model().float()
    with torch.no_grad():
        expected = reference(input_ids=torch.tensor([ids])).logits[0, -1].numpy()
    conversation = Conversation(model.backend, model.bundle.manifest)
    settings = resolve(None, model.bundle.manifest)
    stretch = assemble(ids, [], None, model._embeddings, 0)
    mine = conversation.read(stretch, 0, settings, Cancel())[0]
    peer.reset()
    peer.eval(ids)
    scale = float(np.sqrt((expected**2).mean()))
    return {
        name: float(np.sqrt(((logits - expected) ** 2).mean())) / scale
        for name, logits in (("tightrope", mine), ("llama.cpp", np.array(_last(peer))))
    }


if __name__ == "__main__":
    main()
