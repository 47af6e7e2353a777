"""What keeping the times of requests costs: on their path, and in the thread that writes.

    python benchmarks/live_ring.py BUNDLE

Requests run on the backend that computes nothing, so that hundredths of a millisecond can be seen:
one with a picture, in turn on a model whose requests are kept and on one whose are not. Beside the
difference stands what the call that keeps one takes, behind the answer, and what the thread spends
on one, which other threads may have to wait for.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from statistics import median

import numpy as np
from measuring import record, spread

import tightrope as tr
from tightrope.bundle import Bundle
from tightrope.live_file import KEPT, append, live_file, read_requests
from tightrope.runtime.backends.null import NullBackend
from tightrope.runtime.key import latency_key
from tightrope.runtime.live import WRITER

PICTURE = np.zeros((64, 64, 3), np.uint8)


def made(bundle: Bundle, *, keep: bool) -> tr.Model:
    """A model that computes nothing."""
    model = tr.Model(bundle, NullBackend(bundle.manifest.dims, lambda call: 40))
    if keep:
        model._keep_times(0.0)
    return model


def ask(model: tr.Model) -> float:
    """Milliseconds of a request, from its submission to its answer."""
    images = [] if model.bundle.manifest.vision is None else [PICTURE]
    started = time.perf_counter()
    model.generate("what is it ?", images, max_tokens=4, ignore_eos=True)
    return (time.perf_counter() - started) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("--requests", type=int, default=2000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TIGHTROPE_STATE"] = folder
        bundle = Bundle.open(given.bundle)
        plain, kept = made(bundle, keep=False), made(bundle, keep=True)
        watched: list[float] = []
        (ring,) = kept._loaded.watchers

        def timed(finished: object) -> None:
            started = time.perf_counter()
            ring(finished)  # type: ignore[arg-type]
            watched.append((time.perf_counter() - started) * 1e3)

        kept._loaded.watchers[:] = [timed]
        for model in (plain, kept):
            for _ in range(20):
                ask(model)
        watched.clear()
        pairs = [(ask(plain), ask(kept)) for _ in range(given.requests)]
        WRITER.flush()
        key = latency_key(bundle, kept.backend)
        entries = read_requests(live_file(bundle), key)
        started = time.thread_time()
        append(live_file(bundle), key, entries)
        thread_ms = (time.thread_time() - started) * 1e3 / len(entries)
        figures = {
            "unit": "ms a request",
            "requests": given.requests,
            "kept": len(entries),
            "plain": spread([one for one, _ in pairs]),
            "with the ring": spread([other for _, other in pairs]),
            "difference": median(other - one for one, other in pairs),
            "the call behind the answer": spread(watched),
            "the call behind the answer, p99": float(np.percentile(watched, 99)),
            "the writing thread": thread_ms,
        }
    assert len(entries) == min(KEPT, given.requests + 20)
    record("live_ring", figures)


if __name__ == "__main__":
    main()
