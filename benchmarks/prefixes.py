"""What does a kept prefix save, and what does taking it over cost?

    python benchmarks/prefixes.py BUNDLE

The same short question behind system prompts of growing length: time to the first token where the
prompt is read whole, where it is cut and nothing was kept, and where its beginning is kept, in
turn; and for scale the copying of its slots alone.
"""

from __future__ import annotations

import argparse
from typing import Any

from measuring import interleaved, record, spread

import tightrope as tr

WORDS = ["answer", "in", "one", "word", "and", "be", "kind", "to", "whoever", "asks"]


def asked(model: tr.Model, tokens: int) -> list[dict[str, str]]:
    """A question behind a system's message, of about so many tokens in all."""
    words: list[str] = []
    while True:
        text = " ".join(words)
        prompt = [{"role": "system", "content": text}, {"role": "user", "content": "why ?"}]
        if len(model.token_ids(prompt)) >= tokens:
            return prompt
        words += WORDS


def ttft_ms(model: tr.Model, prompt: Any) -> float:
    answer = model.generate(prompt, max_tokens=1)
    return answer.timings.ttft_ms


def measured(model: tr.Model, tokens: int, repetitions: int) -> dict[str, Any]:
    """Milliseconds to the first token in each way, and of copying the slots."""
    prompt = asked(model, tokens)
    ids = model.token_ids(prompt)
    ways: dict[str, list[float]] = {"read whole": [], "cut": [], "kept": []}
    for repetition in range(repetitions + 1):
        model.forget_prefixes()
        took = (ttft_ms(model, ids), ttft_ms(model, prompt), ttft_ms(model, prompt))
        if repetition:
            for times, ms in zip(ways.values(), took, strict=True):
                times.append(ms)
    prefixes = model._loaded.prefixes
    (key,) = list(prefixes.kept)
    copies = interleaved({"copy": lambda: prefixes.fork(key)}, repetitions)["copy"]
    return {
        "prompt_tokens": len(ids),
        "kept_tokens": len(key.tokens),
        "kept_bytes": prefixes.kept.nbytes,
        **{name: spread(times) for name, times in ways.items()},
        "copy": spread(copies),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("--tokens", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    model = tr.load(given.bundle, threads=given.threads)
    rows = [measured(model, tokens, given.repetitions) for tokens in given.tokens]
    record("prefixes", {"unit": "ms to the first token", "threads": given.threads, "rows": rows})


if __name__ == "__main__":
    main()
