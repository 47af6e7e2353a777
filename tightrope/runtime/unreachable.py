"""Why no point keeps a budget, and what could be reached instead."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from tightrope.budget import in_words
from tightrope.errors import BudgetUnreachable
from tightrope.runtime.heat import Choices
from tightrope.runtime.paces import Fitted, Paces, admitted_by
from tightrope.runtime.plan import ADMITTED_BY, Asked
from tightrope.runtime.waiting import IDLE, Load


def not_good_enough(asked: Asked, best: float) -> BudgetUnreachable:
    """No point may be taken at all. best: the highest measured quality."""
    return BudgetUnreachable(
        f"no point has {in_words(asked.budget)} for this prompt; the best measured quality "
        f"is {best:.3f}"
    )


def unreachable(
    asked: Asked,
    allowed: Choices,
    load: Load,
    paces: Paces,
    fitted_of: Callable[[Asked], Fitted],
) -> BudgetUnreachable:
    """None of the `allowed` points keeps the limits; fitted_of: what each takes."""
    fitted, percent = fitted_of(asked), admitted_by(load)
    place = int(np.where(allowed, fitted.total, np.inf).argmin())
    late = paces.total.factor(percent) * float(fitted.total[place]) + load.waiting_ms
    first = paces.ttft.factor(percent) * float(fitted.ttft[place]) + load.waiting_ms
    said = (
        f"{in_words(asked.budget)} cannot be met: the fastest of {int(allowed.sum())} points "
        f"takes {late:.0f} ms for {fitted.times.completion_tokens[place]} tokens, the first after "
        f"{first:.0f} ms, in {percent} of 100 requests"
    )
    if asked.budget.energy_j is not None:
        said += f"; none takes less than {float(fitted.joules[allowed].min()):.2f} J"
    if (longest := _longest(asked, allowed, load, paces, fitted_of)) > 0:
        said += f"; max_tokens of {longest} could be met"
    retry_ms, slowed = None, False
    if (allowed & paces.fits(asked.budget, fitted, IDLE, ADMITTED_BY)).any():
        said += "; other requests are in its way"
        retry_ms = load.busy_ms
    elif (allowed & paces.fits_as_measured(asked.budget, fitted)).any():
        said += "; it could be if the machine were as fast as when it was measured"
        slowed = True
    return BudgetUnreachable(said, fastest_ms=late, retry_ms=retry_ms, slowed=slowed)


def _longest(
    asked: Asked,
    allowed: Choices,
    load: Load,
    paces: Paces,
    fitted_of: Callable[[Asked], Fitted],
) -> int:
    """The largest `max_tokens` below the one asked for that some point meets; 0: none is."""
    met, missed, percent = 0, asked.max_tokens, admitted_by(load)
    while missed - met > 1:
        middle = (met + missed) // 2
        fitted = fitted_of(replace(asked, max_tokens=middle))
        if (allowed & paces.fits(asked.budget, fitted, load, percent)).any():
            met = middle
        else:
            missed = middle
    return met
