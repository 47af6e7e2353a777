"""At which of its marks a request ends a call of the decoder.

Only where what stands before then fills its slots as it would in one call with the rest: no slot is
given up there but what has left a layer's window, the policy scores alike however a prompt is cut,
and no schedule has to see the images of the beginning together with the question.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import numpy as np

from tightrope.inputs.layout import Size
from tightrope.plugins.slot_attention.policies import scores_any_cut
from tightrope.runtime.demand import demand_of
from tightrope.runtime.loaded import Loaded
from tightrope.runtime.marks import Cut, Mark
from tightrope.runtime.settings import Settings


def cuts_of(
    loaded: Loaded, marks: Sequence[Mark], images: Sequence[Size], settings: Settings
) -> tuple[Cut, ...]:
    """The cuts of a prompt that is read from its start, ascending; they depend on it alone."""
    if settings.evicts and not scores_any_cut(settings.policy):
        return ()
    cuts, most = list[Cut](), _room(loaded, settings)
    for mark in marks:
        if mark.num_images and settings.link("inside") is not None:
            break
        demand = demand_of(loaded, mark.num_ids, images[: mark.num_images], settings)
        if demand.length > most:
            break
        cuts.append(Cut(mark.num_ids, place=demand.length, ordinal=demand.unpruned))
    return tuple(cuts)


def _room(loaded: Loaded, settings: Settings) -> int:
    """Tokens of which every layer holds all that it can see."""
    budget = settings.kv_budget.min(1)
    windows = np.array(loaded.manifest.windows or (0,) * len(budget))
    return int(budget[windows != budget].min(initial=sys.maxsize))


def parts_of(
    length: int,
    chunk: Callable[[int], int],
    cuts: Sequence[int] = (),
    wholes: Sequence[slice] = (),
) -> list[slice]:
    """The calls that read `length` tokens, one ending at each of the cuts.

    chunk: how many tokens a call may have at most, by the token that it begins with.
    wholes: what no call may end inside, however long it is, no cut in any.
    """
    parts = []
    for begin, end in zip((0, *cuts), (*cuts, length), strict=True):
        while begin < end:
            stop = min(begin + chunk(begin), end)
            if whole := next((whole for whole in wholes if whole.start < stop < whole.stop), None):
                stop = whole.start if whole.start > begin else whole.stop
            parts.append(slice(begin, stop))
            begin = stop
    return parts
