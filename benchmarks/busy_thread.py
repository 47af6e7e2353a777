"""What a busy Python thread beside a generation costs it: both hold the interpreter's lock in turn.

    python benchmarks/busy_thread.py BUNDLE

A stream is read to its end, in turn alone, beside a thread that counts without a pause, and beside
one that computes in numpy, which lets go of the lock.
"""

from __future__ import annotations

import argparse
import threading
from collections.abc import Callable

import numpy as np
from measuring import record, spread

import tightrope as tr

PROMPT = list(range(30, 62))


def counting(stop: threading.Event) -> None:
    number = 0
    while not stop.is_set():
        number += 1


def multiplying(stop: threading.Event) -> None:
    matrix = np.ones((256, 256), np.float32)
    while not stop.is_set():
        matrix @ matrix


BESIDE: dict[str, Callable[[threading.Event], None] | None] = {
    "alone": None,
    "beside a thread that counts": counting,
    "beside a thread that multiplies in numpy": multiplying,
}


def per_token(model: tr.Model, beside: Callable[[threading.Event], None] | None, n: int) -> float:
    """Milliseconds a token."""
    stop = threading.Event()
    thread = None if beside is None else threading.Thread(target=beside, args=(stop,))
    if thread is not None:
        thread.start()
    try:
        *_, last = model.stream(PROMPT, max_tokens=n, ignore_eos=True)
    finally:
        stop.set()
        if thread is not None:
            thread.join()
    assert last.answer is not None
    return last.answer.timings.decode_ms / (n - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    model = tr.load(given.bundle, threads=given.threads, live=False)
    times: dict[str, list[float]] = {name: [] for name in BESIDE}
    for repetition in range(given.repetitions + 1):
        for name, beside in BESIDE.items():
            took = per_token(model, beside, given.tokens)
            if repetition:
                times[name].append(took)
    rows = {name: spread(values) for name, values in times.items()}
    record("busy_thread", {"unit": "ms a token", "threads": given.threads, "rows": rows})


if __name__ == "__main__":
    main()
