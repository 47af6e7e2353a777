"""The knee of a frontier: behind it more of the cost buys little."""

from __future__ import annotations

from collections.abc import Sequence


def knee(costs: Sequence[float], worths: Sequence[float]) -> int | None:
    """Place of the point that lies highest above the line from the first to the last one.

    costs, worths: of non-dominated points, both ascending; both are scaled to 0..1.
    None where no point lies above the line, as of fewer than three.

    Kneedle, without its smoothing: Satopää et al. 2011, Finding a "Kneedle" in a Haystack.
    """
    if len(costs) < 3 or costs[-1] <= costs[0] or worths[-1] <= worths[0]:
        return None
    above = [
        (worth - worths[0]) / (worths[-1] - worths[0]) - (cost - costs[0]) / (costs[-1] - costs[0])
        for cost, worth in zip(costs, worths, strict=True)
    ]
    place = max(range(len(above)), key=above.__getitem__)
    return place if above[place] > 1e-9 else None  # the ends are on the line
