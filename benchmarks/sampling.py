"""What does choosing a token cost, at a vocabulary of 152,000?

    python benchmarks/sampling.py

Each way beside greedy, all in turn, on random logits; 200 tokens were said before.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
from measuring import interleaved, record, spread

from tightrope.runtime.choosing import Chooser
from tightrope.runtime.logprobs import Logprobs
from tightrope.runtime.options import Options

VOCABULARY = 152_000
SAID = 200
WAYS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "temperature": {"temperature": 0.8},
    "top_p": {"temperature": 0.8, "top_p": 0.9},
    "top_k": {"temperature": 0.8, "top_k": 40},
    "min_p": {"temperature": 0.8, "min_p": 0.05},
    "repetition": {"repetition_penalty": 1.1},
    "presence and frequency": {"presence_penalty": 0.5, "frequency_penalty": 0.5},
    "bias": {"logit_bias": {number: 1.0 for number in range(100)}},
    "all of them": {
        "temperature": 0.8,
        "top_k": 40,
        "top_p": 0.9,
        "min_p": 0.05,
        "repetition_penalty": 1.1,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.5,
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=200)
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    logits = (rng.standard_normal((1, VOCABULARY)) * 3).astype(np.float32)
    said = rng.integers(0, VOCABULARY, SAID).tolist()

    def choosing(options: Options) -> Callable[[], object]:
        chooser = Chooser(options, VOCABULARY)
        chooser.watch(said, [said])
        return lambda: chooser(logits)

    tasks = {name: choosing(Options(**options)) for name, options in WAYS.items()}
    logprobs = Logprobs(20, str)
    tasks["20 logprobs"] = lambda: logprobs.note(logits[0], 7)
    times = interleaved(tasks, given.repetitions)
    figures = {name: spread(values) for name, values in times.items()}
    record("sampling", {"unit": "ms a token", "vocabulary": VOCABULARY, "said": SAID, **figures})


if __name__ == "__main__":
    main()
