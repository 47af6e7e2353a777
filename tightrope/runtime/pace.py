"""How fast the machine is now, beside what its latency file says.

Clocks throttle, other programs start and end. After every request the measured time is divided by
the fitted one. Three things are learnt from that ratio:

    level      the machine's present speed: the median of the ratios since it last changed
    noise      how far requests are from the level that they belong to, of the last 200
    surprises  ratios of the requests by which the machine was seen to have become slower

A change of level is seen by two requests in a row that are slower than all but one in a hundred
were when the file was made, or by three that are faster. What a change costs is two misses: one
change in 200 requests is within 99 %, and nothing is held back for the next. More of them are a
load that comes and goes, and its times are planned for also while it is away.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import deque
from collections.abc import Callable, Sequence
from statistics import median, median_low

from tightrope.latency import Spread

REMEMBERED = 200
"""Requests whose noise and surprises count."""
LEVEL_OVER = 32
SLOWER_AFTER, FASTER_AFTER = 2, 3
LEAST_CHANGE = 1.1
"""Ratio of levels below which a change is noise on any machine."""
HEAT_SECONDS = 300.0
"""So long a board's heat, or a load beside it, may be taken to last while nothing is known."""


class Pace:
    """Ratios of measured to fitted times, in the order of the requests."""

    def __init__(self, spread: Spread, unsure: bool = False) -> None:
        """spread: of the requests that the latency file was made of, until others came.

        unsure: whether the first request tells more of the level than that file.
        """
        self._unsure = unsure
        self.level = self._usual = spread.percentile(50)
        """Measured over fitted time, now."""
        self._slower = max(LEAST_CHANGE, spread.percentile(99) / self.level)
        self._faster = min(1 / LEAST_CHANGE, spread.percentile(1) / self.level)
        usual = [100 * (number + 0.5) / REMEMBERED for number in range(REMEMBERED)]
        # Interleaved, so that what leaves first is a fair sample of what was known before.
        scattered = [usual[number * 77 % REMEMBERED] for number in range(REMEMBERED)]
        self._noise = deque(spread.percentile(percent) / self.level for percent in scattered)
        self._sorted = sorted(self._noise)
        self._surprises = deque([0.0] * REMEMBERED, maxlen=REMEMBERED)  # 0: it was none
        self._largest: list[float] = []
        self._recent: deque[float] = deque(maxlen=LEVEL_OVER)

    def factor(self, percent: float) -> float:
        """By what the fitted time is multiplied, so that `percent` of the requests keep it."""
        allowed = int(REMEMBERED * (100 - percent) / 100)
        factor = self.level * self._sorted[max(0, REMEMBERED - 1 - allowed)]
        return max([factor, *self._largest[allowed : allowed + 1]])

    def record(self, ratio: float) -> None:
        """Note a request that took `ratio` times the fitted time."""
        if self._unsure:
            self.level, self._unsure = ratio, False
        self._sorted.remove(self._noise.popleft())
        self._remember(ratio / self.level)
        self._surprises.append(0.0)
        self._recent.append(ratio)
        slower = self._changed(SLOWER_AFTER, self._is_slower)
        faster = self._changed(FASTER_AFTER, self._is_faster)
        for newest in (slower, faster):
            if newest:
                self._recent = deque(newest, maxlen=LEVEL_OVER)
        if len(self._recent) >= SLOWER_AFTER:
            # Of two the faster one: the first that meets a load may be slowed by its beginning.
            self.level = median_low(self._recent)
        for place, surprise in enumerate(slower, start=-len(slower)):
            self._surprises[place] = surprise
            self._sorted.remove(self._noise.pop())
        for surprise in slower:  # they belong to the level that was found by them
            self._remember(surprise / self.level)
        self._largest = sorted(filter(None, self._surprises), reverse=True)

    def resume(self, earlier: Sequence[tuple[float, float]]) -> None:
        """Go on from requests of earlier processes, as if they had been this one's.

        earlier: seconds since each was done and its ratio, the oldest first.
        A level that nothing confirmed for `HEAT_SECONDS` is over. Then the median of all of them is
        expected, where that is slower: too slow a level costs quality for three requests, too fast
        a one misses a deadline.
        """
        later = math.inf
        for age_s, ratio in earlier:
            if later - age_s > HEAT_SECONDS:
                self._recent.clear()
            self.record(ratio)
            later = age_s
        if earlier and later > HEAT_SECONDS:
            self._recent.clear()
            self.level = max(self._usual, median(ratio for _, ratio in earlier))

    def _changed(self, many: int, far: Callable[[float], bool]) -> list[float]:
        """The newest requests that are `far` from the level, if there are `many` in a row."""
        newest = list(self._recent)[-many:]
        return newest if len(newest) == many and all(map(far, newest)) else []

    def _is_slower(self, ratio: float) -> bool:
        return ratio > self.level * self._slower

    def _is_faster(self, ratio: float) -> bool:
        return ratio < self.level * self._faster

    def _remember(self, noise: float) -> None:
        self._noise.append(noise)
        insort(self._sorted, noise)
