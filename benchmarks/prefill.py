"""How long does a prompt take to read, and what does reading it take of memory?

    python benchmarks/prefill.py BUNDLE [--tokens 128 576 1920]

Prompts take turns, each is new. Memory: the most that was resident while one was read, beyond what
was before it; keys and values of the slots that it filled are named beside it. Calls are those of
the bundle's `prefill_chunk`: a longer prompt has more of them, not larger ones.
"""

from __future__ import annotations

import argparse

import numpy as np
from measuring import record, spread

import tightrope as tr
from tightrope.profiles.peak_memory import peak_memory_bytes, reset_peak_memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("--tokens", type=int, nargs="+", default=[128, 576, 1920])
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    model = tr.load(given.bundle, threads=given.threads, prefix_bytes=0, live=False)
    manifest = model.bundle.manifest
    rng = np.random.default_rng(0)
    times: dict[int, list[float]] = {count: [] for count in given.tokens}
    memory: dict[int, list[float]] = {count: [] for count in given.tokens}
    for repetition in range(given.repetitions + 1):
        for count in given.tokens:
            prompt = rng.integers(5, manifest.dims.vocab_size, count).tolist()
            reset_peak_memory()
            before = peak_memory_bytes() or 0
            answer = model.generate(prompt, max_tokens=1, ignore_eos=True)
            if repetition:  # the first one warms up
                times[count].append(answer.timings.prefill_ms)
                memory[count].append(((peak_memory_bytes() or 0) - before) / 1e6)
    dims = manifest.dims
    a_token = 2 * 4 * dims.num_hidden_layers * dims.num_key_value_heads * dims.head_dim
    record(
        "prefill",
        {
            "unit": "ms",
            "tokens a call": manifest.prefill_chunk,
            "rows": {
                count: {
                    "prefill": spread(times[count]),
                    "tokens a second": count / spread(times[count])["median"] * 1e3,
                    "megabytes beyond what was there": spread(memory[count]),
                    "of them keys and values": count * a_token / 1e6,
                }
                for count in given.tokens
            },
        },
    )


if __name__ == "__main__":
    main()
