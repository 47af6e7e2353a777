"""What does it cost a step to give up a slot, and does a long answer under a budget stay as fast?

    python benchmarks/evicting.py BUNDLE [--tokens 32768 --budget 512]

At 64 to 512 occupied slots: a step that gives one up beside one that finds an empty slot, in turn.
Then an answer of --tokens tokens under one budget: the steps of the first thousand once it is
filled, those of the last thousand, and the process's memory at both times.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import numpy as np
from measuring import interleaved, record, spread
from steps import filled, load, one_step

import tightrope as tr
from tightrope.interface.calls import Call
from tightrope.runtime.conversation import Conversation
from tightrope.runtime.loaded import Loaded
from tightrope.runtime.settings import Settings, resolve

OCCUPIED = (64, 128, 256, 512)
WINDOW = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("--policy", default="h2o")
    parser.add_argument("--tokens", type=int, default=32_768)
    parser.add_argument("--budget", type=int, default=512)
    parser.add_argument("--repetitions", type=int, default=40)
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    model = load(given.bundle, given.threads)
    rows = {}
    for count in OCCUPIED:
        free, full = filled(model, count), filled(model, count)
        free.slots.shrink(np.full(len(free.slots.capacity), count + 1))
        full.slots.shrink(np.full(len(full.slots.capacity), count))
        settings = under(model, given.policy, count)
        times = interleaved(
            {
                "finds an empty slot": lambda free=free: one_step(model, free),
                "gives one up": lambda full=full, settings=settings: one_step(
                    model, full, settings
                ),
            },
            given.repetitions,
        )
        ratios = [b / a for a, b in zip(*times.values(), strict=True)]
        rows[f"{count} occupied"] = {
            **{name: spread(value) for name, value in times.items()},
            "ratio": spread(ratios),
        }
    figures = {"unit": "ms a step", "policy": given.policy, "giving up": rows}
    if given.tokens:
        figures["long answer"] = long_answer(model, given.policy, given.budget, given.tokens)
    record("evicting", figures)


def under(model: Loaded, policy: str, budget: int) -> Settings:
    point = tr.OperatingPoint(policy=policy, kv_budget=budget)
    return resolve(point, model.manifest)


def long_answer(model: Loaded, policy: str, budget: int, tokens: int) -> dict[str, object]:
    """Step after step on random tokens, committed, at most `budget` slots."""
    settings, conversation = under(model, policy, budget), Conversation(model)
    slots, layers = conversation.slots, model.manifest.dims.num_hidden_layers
    ids = np.random.default_rng(0).integers(5, model.manifest.dims.vocab_size, tokens)
    most, times, megabytes = settings.kv_budget.max(1), [], []
    for place, token in enumerate(ids):
        started = time.perf_counter()
        slots.make_room(np.ones(layers, np.int64), most)
        ordinal = np.array([[place]])
        call = Call(
            model.embeddings([[token]]),
            ordinal.astype(np.int32),
            ordinal,
            settings.kv_budget,
            settings.policy,
        )
        _, update = model.backend.decode(slots, call)
        slots.commit(update)
        times.append((time.perf_counter() - started) * 1e3)
        if place in (budget + WINDOW, tokens - 1):
            megabytes.append(resident_mb())
    first, last = times[budget : budget + WINDOW], times[-WINDOW:]
    return {
        "tokens": tokens,
        "budget": budget,
        "first thousand once it is filled": spread(first),
        "last thousand": spread(last),
        "ratio of medians": float(np.median(last) / np.median(first)),
        "resident MB at both": megabytes,
        "most MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


if __name__ == "__main__":
    main()
