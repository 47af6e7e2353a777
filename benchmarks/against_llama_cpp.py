"""SmolLM2-135M-Instruct beside llama.cpp on the same file, in one run, step by step in turn.

    pip install llama-cpp-python
    python benchmarks/against_llama_cpp.py BUNDLE models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf

Decode speed at greedy, both on the same number of threads, each in a process of its own and in
turn, so that neither's waiting threads take the other's cores. Both compute with the file's own
codes: export the bundle with `--precision int4`. The logit error of each, of one prompt, is
taken against the file's weights in float32 (Hugging Face's model), if torch is installed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from typing import Any

import numpy as np
from measuring import record, spread

import tightrope as tr
from tightrope.bundle import Bundle
from tightrope.inputs.layout import assemble
from tightrope.runtime.cancel import Cancel
from tightrope.runtime.conversation import Conversation
from tightrope.runtime.loaded import Loaded
from tightrope.runtime.settings import resolve

# "The history of the steam engine begins with", for the logit error.
IDS = [504, 1463, 282, 260, 9403, 2327, 5634, 351]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("gguf")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--prompt-tokens", type=int, default=256)
    parser.add_argument("--repetitions", type=int, default=7)
    arguments = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    sides = {}
    for side, file in (("tightrope", arguments.bundle), ("llama.cpp", arguments.gguf)):
        ours_end, theirs_end = spawn.Pipe()
        work = (side, file, arguments.threads, arguments.prompt_tokens, arguments.tokens)
        spawn.Process(target=_serve, args=(theirs_end, *work), daemon=True).start()
        sides[side] = ours_end
    measured: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for repetition in range(arguments.repetitions + 1):
        for side, pipe in sides.items():
            pipe.send("go")
            result = pipe.recv()
            if repetition:  # the first one warms up
                measured[side].append(result)
    logits = {}
    for side, pipe in sides.items():
        pipe.send("logits")
        logits[side] = pipe.recv()
        pipe.send("end")
    ours, theirs = (
        {name: [result[name] for result in measured[side]] for name in ("decode", "prefill")}
        for side in ("tightrope", "llama.cpp")
    )
    precision = Bundle.open(arguments.bundle).manifest.precision
    ratios = {
        name: spread([a / b for a, b in zip(ours[name], theirs[name], strict=True)])
        for name in ours
    }
    record(
        "against_llama_cpp",
        {
            "threads": arguments.threads,
            "precision": {
                "tightrope": f"{precision}, int8 activations",
                "llama.cpp": "Q4_1, int8 activations",
            },
            "tokens a second, tightrope": {name: spread(value) for name, value in ours.items()},
            "tokens a second, llama.cpp": {name: spread(value) for name, value in theirs.items()},
            "tightrope / llama.cpp": ratios,
            "logit error": _errors(logits, arguments.gguf),
        },
    )


def _serve(pipe: Any, side: str, file: str, threads: int, prompt_tokens: int, tokens: int) -> None:
    """One side in its own process: answers "go" with speeds and "logits" with logits."""
    prompt = np.random.default_rng(0).integers(100, 49000, prompt_tokens).tolist()
    if side == "tightrope":
        model = tr.load(file, threads=threads, live=False)
    else:
        import llama_cpp

        peer = llama_cpp.Llama(
            file, n_ctx=1024, n_threads=threads, n_threads_batch=threads, verbose=False
        )
    while (wanted := pipe.recv()) != "end":
        if side == "tightrope":
            pipe.send(_ours(model, prompt, tokens) if wanted == "go" else _our_logits(model))
        else:
            pipe.send(_theirs(peer, prompt, tokens) if wanted == "go" else _their_logits(peer))


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
    token = int(np.argmax(_last(peer)))
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


def _our_logits(model: Any) -> Any:
    loaded = Loaded(model.bundle, model.backend, time.perf_counter)
    stream = assemble(IDS, None, (), loaded.embeddings)
    settings = resolve(None, loaded.manifest)
    *_, logits = Conversation(loaded).read(stream, 0, settings, Cancel())
    return logits[0]


def _their_logits(peer: Any) -> Any:
    peer.reset()
    peer.eval(IDS)
    return np.array(_last(peer))


def _errors(logits: dict[str, Any], gguf: str) -> dict[str, Any]:
    """Root mean square of the difference of logits, over that of the logits, after a prompt."""
    try:
        import torch

        from tightrope.export.checkpoint import open_checkpoint
    except ModuleNotFoundError:
        return {"not measured": "torch is not installed"}
    reference = open_checkpoint(gguf).load_model().float()
    with torch.no_grad():
        expected = reference(input_ids=torch.tensor([IDS])).logits[0, -1].numpy()
    scale = float(np.sqrt((expected**2).mean()))
    return {
        name: float(np.sqrt(((value - expected) ** 2).mean())) / scale
        for name, value in logits.items()
    }


if __name__ == "__main__":
    main()
