"""What a request would spend, told before it is sent: tokens, slots, bytes, and the time predicted.

Nothing is computed and nothing decoded: of an image its header is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tightrope.errors import ProfileError
from tightrope.latency import Prediction, Workload
from tightrope.latency_file import read_latency
from tightrope.point import OperatingPoint
from tightrope.runtime.demand import Demand
from tightrope.runtime.frames import prompt_ids
from tightrope.runtime.held import headers_of
from tightrope.runtime.images import check_list
from tightrope.runtime.key import latency_key
from tightrope.runtime.loaded import Loaded
from tightrope.runtime.options import ImageSource, Options, Prompt
from tightrope.runtime.plan import Plan
from tightrope.runtime.planned import plan
from tightrope.runtime.settings import resolve
from tightrope.runtime.workload import work_of
from tightrope.schemas import versioned


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """What a request would spend if its answer were as long as it may be."""

    prompt_tokens: int
    """Of the whole prompt, its images unpruned."""
    cached_tokens: int
    """Of these, in slots that are kept now; text alone, since no image is decoded."""
    visual_tokens: int
    """Of all images, before selection."""
    visual_tokens_kept: int
    """What the last decoder layer would see of them."""
    completion_tokens: int
    """The longest answer: `max_tokens`, or what the slots have room for."""
    occupied_slots: int
    """At its end, per KV head, in the layer that holds most."""
    slot_bytes: int
    """Keys and values allocated at its end."""
    point: OperatingPoint
    """What would be spent, every "None" of the request resolved."""
    backend: str
    work: Workload
    """The same in what takes time."""
    prediction: Prediction | None
    """None where nothing was measured on this machine; the notes then say how to."""
    plan: Plan | None = None
    """What a budget would lead to now."""
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values with a schema number."""
        values = asdict(self)
        values["prediction"] = None if self.prediction is None else self.prediction.to_dict()
        return versioned("count", values)


def count(loaded: Loaded, prompt: Prompt, images: Sequence[ImageSource], options: Options) -> Count:
    """What a request of its own would spend; raises InputError for one that cannot be answered."""
    check_list(images)
    planned = None if options.budget is None else plan(loaded, prompt, images, options)
    point = options.point if planned is None else planned.plan.point
    settings = resolve(point, loaded.manifest, loaded.baselines)
    headers = headers_of(images, loaded.detail(options.budget))
    cap = settings.point.thinking_tokens
    ids = prompt_ids(loaded.language, prompt, images, options.thinking, cap)
    marks = loaded.language.marks(prompt, ids, len(images), options.thinking, cap)
    beginnings = loaded.prefixes.beginnings(ids, marks, loaded.wholes(ids))
    counted = work_of(loaded, len(ids), headers, settings, options.max_tokens, beginnings)
    prediction, notes = _predicted(loaded, counted.work)
    demand, steps = counted.demand, counted.work.completion_tokens
    return Count(
        prompt_tokens=demand.unpruned,
        cached_tokens=counted.cached_tokens,
        visual_tokens=sum(demand.available),
        visual_tokens_kept=_last_layer(demand),
        completion_tokens=steps,
        occupied_slots=counted.occupied_slots,
        slot_bytes=counted.slot_bytes,
        point=settings.point,
        backend=loaded.backend.name,
        work=counted.work,
        prediction=prediction,
        plan=None if planned is None else planned.plan,
        notes=notes,
    )


def _predicted(loaded: Loaded, work: Workload) -> tuple[Prediction | None, tuple[str, ...]]:
    try:
        record = read_latency(loaded.bundle, latency_key(loaded.bundle, loaded.backend))
    except ProfileError as error:
        return None, (str(error),)
    prediction = record.model.predict(work)
    return prediction, tuple(f"{part} was not measured" for part in prediction.unmeasured)


def _last_layer(demand: Demand) -> int:
    return min(demand.inside, demand.visual)
