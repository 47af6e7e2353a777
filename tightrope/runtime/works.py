"""What requests make the machine do, counted once for all that are alike.

One request is counted when it is predicted, when it claims its device, and when the pace is learnt
from it; and most are like one that came before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from tightrope.inputs.layout import Size
from tightrope.latency import SourceImage, Workload
from tightrope.point import OperatingPoint
from tightrope.runtime.begun import Begun, unread
from tightrope.runtime.loaded import Loaded
from tightrope.runtime.marks import Beginnings
from tightrope.runtime.settings import Settings, resolve
from tightrope.runtime.workload import ENDLESS, work_of

MOST_KEPT = 512


class Works:
    """The work of one bundle's requests; any thread may ask."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self._counted = lru_cache(maxsize=MOST_KEPT)(self._count)

    def of(
        self,
        num_ids: int,
        images: Sequence[SourceImage],
        settings: Settings,
        completion_tokens: int,
        beginnings: Beginnings,
        begun: Begun | None,
    ) -> Workload:
        """As `work_of` tells it; raises InputError where the slots cannot hold it."""
        sizes = tuple((image.width, image.height) for image in images)
        work = self._counted(num_ids, sizes, settings.point, beginnings, begun)
        return replace(
            work,
            images=tuple(unread(images, begun, settings)),
            completion_tokens=min(completion_tokens, work.completion_tokens),
        )

    def _count(
        self,
        num_ids: int,
        sizes: tuple[Size, ...],
        point: OperatingPoint,
        beginnings: Beginnings,
        begun: Begun | None,
    ) -> Workload:
        """Of an answer as long as the slots hold: how long it is changes nothing else of it."""
        loaded = self._loaded
        settings = resolve(point, loaded.manifest, loaded.baselines)
        images = [SourceImage(format="array", width=x, height=y) for x, y in sizes]
        return work_of(loaded, num_ids, images, settings, ENDLESS, beginnings, begun).work
