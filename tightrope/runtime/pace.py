"""How fast the machine is now, beside what its latency file says.

Clocks throttle, other programs start and end. After every request the measured time is divided by
the fitted one. Two things are learnt from that:

    level    the machine's present speed: the median of the ratios since it last changed
    margin   how far one request is from the level before it, at a percentile of the last 200

A change of level is seen by two requests in a row that are slower than all but one in a hundred
were when the file was made, or by three that are faster. A change that happens once is two misses
in 200 and widens no margin of 99 %; a load that comes and goes does.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from statistics import median

from tightrope.latency import Spread

REMEMBERED = 200
"""Requests whose distance from the level counts."""
LEVEL_OVER = 32
SLOWER_AFTER, FASTER_AFTER = 2, 3
LEAST_CHANGE = 1.1
"""Ratio of levels below which a change is noise on any machine."""


class Pace:
    """Ratios of measured to fitted times, in the order of the requests."""

    def __init__(self, spread: Spread) -> None:
        """spread: of the requests that the latency file was made of, until others came."""
        self.level = spread.percentile(50)
        """Measured over fitted time, now."""
        self._slower = max(LEAST_CHANGE, spread.percentile(99) / self.level)
        self._faster = min(1 / LEAST_CHANGE, spread.percentile(1) / self.level)
        usual = [100 * (number + 0.5) / REMEMBERED for number in range(REMEMBERED)]
        # Interleaved, so that what leaves first is a fair sample of what was known before.
        scattered = [usual[number * 77 % REMEMBERED] for number in range(REMEMBERED)]
        self._errors = deque(spread.percentile(percent) / self.level for percent in scattered)
        self._sorted = sorted(self._errors)
        self._recent: deque[float] = deque(maxlen=LEVEL_OVER)

    def factor(self, percent: float) -> float:
        """By what the fitted time is multiplied, so that `percent` of the requests keep it."""
        allowed = int(REMEMBERED * (100 - percent) / 100)
        return self.level * self._sorted[max(0, REMEMBERED - 1 - allowed)]

    def record(self, ratio: float) -> None:
        """Note a request that took `ratio` times the fitted time."""
        self._remember(ratio / self.level)
        self._recent.append(ratio)
        for many, far in ((SLOWER_AFTER, self._is_slower), (FASTER_AFTER, self._is_faster)):
            newest = list(self._recent)[-many:]
            if len(newest) == many and all(map(far, newest)):
                self._recent = deque(newest, maxlen=LEVEL_OVER)
        if len(self._recent) >= SLOWER_AFTER:
            self.level = median(self._recent)

    def _is_slower(self, ratio: float) -> bool:
        return ratio > self.level * self._slower

    def _is_faster(self, ratio: float) -> bool:
        return ratio < self.level * self._faster

    def _remember(self, error: float) -> None:
        self._sorted.remove(self._errors.popleft())
        self._errors.append(error)
        insort(self._sorted, error)
