"""Work on a large array a part at a time, on all cores."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


def in_slices(count: int, step: int, work: Callable[[slice], None]) -> None:
    """Let `work` do each part of 0..count; numpy lets go of Python's lock while it computes."""
    slices = [slice(first, min(first + step, count)) for first in range(0, count, step)]
    if len(slices) == 1:
        work(slices[0])
        return
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(work, slices):
            pass
