"""What does a step of N answers to one prompt take, beside a step of one?

    python benchmarks/batches.py BUNDLE [--answers 1 2 4 8] [--prompt-tokens 128]

One prefill, forked; the counts take turns. Every answer is as long as the others.
"""

from __future__ import annotations

import argparse

import numpy as np
from measuring import record, spread

import tightrope as tr


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("--answers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    model = tr.load(given.bundle, threads=given.threads, live=False)
    vocabulary = model.bundle.manifest.dims.vocab_size
    prompt = np.random.default_rng(0).integers(5, vocabulary, given.prompt_tokens).tolist()
    times: dict[int, list[float]] = {count: [] for count in given.answers}
    for repetition in range(given.repetitions + 1):
        for count, several in times.items():
            answer = model.generate(
                prompt, n=count, max_tokens=given.tokens + 1, temperature=1.0, ignore_eos=True
            )
            if repetition:  # the first one warms up
                several.append(answer.timings.decode_ms / given.tokens)
    one = times[given.answers[0]]
    record(
        "batches",
        {
            "unit": "ms a step",
            "prompt tokens": given.prompt_tokens,
            "steps": {count: spread(several) for count, several in times.items()},
            f"as a multiple of {given.answers[0]}": {
                count: spread([a / b for a, b in zip(several, one, strict=True)])
                for count, several in times.items()
            },
        },
    )


if __name__ == "__main__":
    main()
