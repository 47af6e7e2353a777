"""What a request has to do, and how long it will have its device, by what was measured here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tightrope.errors import InputError
from tightrope.latency import Prediction, SourceImage, Workload
from tightrope.runtime.begun import Begun
from tightrope.runtime.loaded import Loaded
from tightrope.runtime.options import Options
from tightrope.runtime.planner import Planner
from tightrope.runtime.settings import Settings
from tightrope.runtime.times import longest_call_ms
from tightrope.runtime.waiting import Claim
from tightrope.runtime.written import Written


@dataclass(frozen=True, slots=True)
class Ahead:
    """A request's work, and who knows what that takes."""

    planner: Planner
    work: Workload
    prediction: Prediction
    """With the device to itself."""


def look_ahead(
    loaded: Loaded,
    written: Written,
    headers: Sequence[SourceImage],
    settings: Settings,
    options: Options,
    begun: Begun | None,
) -> Ahead | None:
    """What lies ahead of a request whose prompt is written.

    headers: of its images. begun: what the slots of its conversation hold. None where nobody was
    told a time yet, and where the slots cannot hold it.
    """
    planner: Planner | None = next(iter(loaded.planners.values()), None)
    if planner is None:
        return None
    ids = written.token_ids
    before = loaded.prefixes.beginnings(ids, written.marks, loaded.wholes(ids))
    try:
        work = planner.works.of(len(ids), headers, settings, options.max_tokens, before, begun)
    except InputError:  # it will be told so when it runs
        return None
    return Ahead(planner, work, planner.model.predict(work))


def claim_of(loaded: Loaded, ahead: Ahead | None, answers: int) -> Claim:
    """Of a request that is promised nothing: whoever comes behind it still has to know of it."""
    due = loaded.engine.waiting.patient_due(loaded.clock())
    if ahead is None:
        return Claim(due=due)
    planner, stages = ahead.planner, ahead.prediction.stages
    expected, late = planner.takes_s(stages, answers)
    longest = longest_call_ms(planner.model, ahead.work, stages)
    call = late * longest / (stages.ttft_ms + answers * stages.decode_ms)
    return Claim(due=due, expected_s=expected, late_s=late, call_s=call)
