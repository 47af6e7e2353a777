"""Do huge pages shorten a step? Three kinds of process in turn, each loaded and measured afresh.

    python benchmarks/huge_pages.py BUNDLE [--rounds 8]

plain: as it is. malloc: GLIBC_TUNABLES=glibc.malloc.hugetlb=1, set before the process starts.
collapsed: after load, every anonymous mapping of 2 MB and more is handed to madvise(MADV_COLLAPSE).
Ratios are taken within a round, whose order changes; the interval is a bootstrap over rounds.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from measuring import record, spread

KINDS = ("plain", "malloc", "collapsed")
HUGE, COLLAPSE = 2 << 20, 25
PROMPT_TOKENS, TOKENS, ANSWERS, RESAMPLES = 128, 48, 4, 4000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--side", choices=KINDS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        print(json.dumps(measured(given.bundle, given.threads, given.side == "collapsed")))
        return
    rows: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for number in range(given.rounds):
        for place in range(len(KINDS)):
            kind = KINDS[(place + number) % len(KINDS)]
            rows[kind].append(asked(given, kind))
    steps = {kind: np.array([row["step"] for row in several]) for kind, several in rows.items()}
    record(
        "huge_pages",
        {
            "unit": "ms a step",
            "transparent_hugepage": Path("/sys/kernel/mm/transparent_hugepage/enabled")
            .read_text()
            .strip(),
            "steps": {kind: spread(several.tolist()) for kind, several in steps.items()},
            "huge MB": {kind: rows[kind][-1]["huge_mb"] for kind in KINDS},
            "load ms": {kind: spread([row["load"] for row in rows[kind]]) for kind in KINDS},
            "ratio to plain": {kind: interval(steps[kind] / steps["plain"]) for kind in KINDS[1:]},
        },
    )


def asked(given: argparse.Namespace, kind: str) -> dict[str, Any]:
    environment = dict(os.environ)
    if kind == "malloc":
        environment["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
    command = [sys.executable, __file__, given.bundle, "--threads", str(given.threads)]
    result = subprocess.run(
        [*command, "--side", kind], check=True, capture_output=True, text=True, env=environment
    )
    row: dict[str, Any] = json.loads(result.stdout)
    return row


def measured(bundle: str, threads: int, collapse: bool) -> dict[str, float]:
    import tightrope as tr

    started = time.perf_counter()
    model = tr.load(bundle, threads=threads, prefix_bytes=0, live=False)
    vocabulary = model.bundle.manifest.dims.vocab_size
    prompt = np.random.default_rng(0).integers(5, vocabulary, PROMPT_TOKENS).tolist()
    model.generate(prompt, max_tokens=4, ignore_eos=True)
    if collapse:
        collapse_all()
    load = time.perf_counter() - started
    steps = []
    for _ in range(ANSWERS):
        answer = model.generate(prompt, max_tokens=TOKENS + 1, ignore_eos=True)
        steps.append(answer.timings.decode_ms / TOKENS)
    smaps = Path("/proc/self/smaps_rollup").read_text()
    huge = re.search(r"AnonHugePages:\s+(\d+)", smaps)
    return {
        "step": min(steps),
        "load": load * 1e3,
        "huge_mb": int(huge[1]) // 1024 if huge else 0,
    }


def collapse_all() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for line in Path("/proc/self/maps").read_text().splitlines():
        place, kind, _, _, inode, *name = line.split()
        if inode != "0" or not kind.startswith("rw") or (name and name[0] != "[heap]"):
            continue
        low, high = (int(part, 16) for part in place.split("-"))
        low, high = -(-low // HUGE) * HUGE, high // HUGE * HUGE
        if high > low:
            libc.madvise(low, high - low, COLLAPSE)


def interval(ratios: np.ndarray) -> dict[str, Any]:
    draws = np.random.default_rng(0).integers(0, len(ratios), (RESAMPLES, len(ratios)))
    low, middle, high = np.quantile(np.median(ratios[draws], 1), [0.025, 0.5, 0.975])
    bounds = [round(float(low), 3), round(float(high), 3)]
    return {"ratio": round(float(middle), 3), "interval": bounds}


if __name__ == "__main__":
    main()
