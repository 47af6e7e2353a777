"""One side of `guard.py`: answers each line with the milliseconds of every stage, as JSON.

It asks through the public interface alone, which both commits have.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np

import tightrope as tr

PROMPT_TOKENS, TOKENS, SLOTS = 192, 48, 96


def main(bundle: str, threads: int) -> None:
    model = tr.load(bundle, threads=threads, prefix_bytes=0, live=False)
    manifest = model.bundle.manifest
    rng = np.random.default_rng(0)
    prompt = rng.integers(0, manifest.dims.vocab_size, PROMPT_TOKENS).tolist()
    picture = rng.integers(0, 256, (512, 512, 3), np.uint8)
    if manifest.vision is not None:
        marker = manifest.vision.image_token_id
        prompt = [token for token in prompt if token != marker]
    for _ in sys.stdin:
        started = time.perf_counter()
        tr.load(bundle, threads=threads, prefix_bytes=0, live=False)
        times = {"load": (time.perf_counter() - started) * 1e3}
        times["prefill"], times["step"] = read(model, prompt, None)
        _, times["step on a budget"] = read(model, prompt, tr.OperatingPoint(kv_budget=SLOTS))
        if manifest.vision is not None:
            times |= seen(model, picture)
        print(json.dumps(times), flush=True)


def read(
    model: tr.Model, prompt: list[int], point: tr.OperatingPoint | None
) -> tuple[float, float]:
    """Prefill of a prompt, and a step behind it."""
    answer = model.generate(prompt, max_tokens=TOKENS + 1, ignore_eos=True, point=point)
    return answer.timings.prefill_ms, answer.timings.decode_ms / TOKENS


def seen(model: tr.Model, picture: Any) -> dict[str, float]:
    """Of a picture, with every selector that the bundle has."""
    times: dict[str, float] = {}
    for selector in sorted(model.bundle.manifest.selectors):
        model.forget_images()
        point = tr.OperatingPoint(selector=selector, keep="25%")
        answer = model.generate("?", [picture], max_tokens=1, point=point)
        times.setdefault("vision", answer.timings.vision_ms)
        times[f"select {selector}"] = answer.timings.select_ms
    return times


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
