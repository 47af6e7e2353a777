"""The planners of a bundle: one a task, opened once, beginning where the last process ended."""

from __future__ import annotations

from tightrope.errors import ProfileError
from tightrope.latency_file import LatencyRecord, make_one, read_latency
from tightrope.live_file import live_file, read_requests
from tightrope.quality_file import Quality, find_quality
from tightrope.runtime.compared import compared
from tightrope.runtime.key import latency_key
from tightrope.runtime.loaded import Loaded
from tightrope.runtime.pace import REMEMBERED
from tightrope.runtime.planner import Planner


def planner_of(loaded: Loaded, task: str | None) -> Planner:
    """The planner of a bundle by a task's questions, opened once.

    Raises ProfileError where no latency was measured here, and for a task that is unknown.
    """
    planner: Planner | None = loaded.planners.get(task)
    if planner is None:
        record = read_latency(loaded.bundle, latency_key(loaded.bundle, loaded.backend))
        quality = find_quality(loaded.bundle, task)
        name = None if quality is None else quality.key.task_name
        # By its name and as the only one it is the same: both learn one pace.
        planner = loaded.planners.setdefault(name, _begun(loaded, record, quality))
        loaded.planners[task] = planner
    return planner


def _begun(loaded: Loaded, record: LatencyRecord, quality: Quality | None) -> Planner:
    """A planner that knows what requests took here lately."""
    heat = loaded.heat
    if heat is not None and heat.ceiling.max_watts is not None and record.power is None:
        raise ProfileError(
            f"max_watts is {heat.ceiling.max_watts:g}, but nobody measured what requests draw: "
            f"{make_one(loaded.bundle)} does it, where a sensor tells it"
        )
    planner = Planner(loaded, record, quality)
    if loaded.live:
        try:
            entries = read_requests(live_file(loaded.bundle), record.key, REMEMBERED)
        except ProfileError as error:  # it plans by the latency file alone
            loaded.say(str(error))
        else:
            planner.resume(compared(loaded, record.model, entries)[0])
    return planner
