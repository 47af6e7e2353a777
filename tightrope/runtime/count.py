"""What a request would spend, told before it is sent: tokens, slots, bytes, and the time predicted.

Nothing is computed and nothing decoded: of an image its header is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tightrope.arrays import Counts
from tightrope.bundle import Bundle, Manifest
from tightrope.errors import ProfileError
from tightrope.jetson.place import board_and_mode
from tightrope.latency import Prediction, PrefillCall, Workload
from tightrope.latency_file import LatencyKey, read_latency
from tightrope.point import OperatingPoint
from tightrope.runtime.backends.backend import Backend
from tightrope.runtime.conversation import Conversation, most_slots
from tightrope.runtime.demand import Demand, demand_of
from tightrope.runtime.images import check_list, image_header
from tightrope.runtime.loaded import Loaded
from tightrope.runtime.options import ImageSource, Options, Prompt
from tightrope.runtime.settings import Settings, resolve
from tightrope.runtime.slots import Slots
from tightrope.runtime.storage import NullStorage
from tightrope.schemas import versioned


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """What a request would spend if its answer were as long as it may be."""

    prompt_tokens: int
    """Of the whole prompt, its images unpruned."""
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
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values with a schema number."""
        values = asdict(self)
        values["prediction"] = None if self.prediction is None else self.prediction.to_dict()
        return versioned("count", values)


def count(loaded: Loaded, prompt: Prompt, images: Sequence[ImageSource], options: Options) -> Count:
    """What a request of its own would spend; raises InputError for one that cannot be answered."""
    settings = resolve(options.point, loaded.manifest, loaded.baselines)
    check_list(images)
    headers = tuple(map(image_header, images))
    ids = loaded.language.token_ids(prompt, len(images), None)
    demand = demand_of(loaded, len(ids), len(images), settings)
    conversation = Conversation(loaded)
    seen = conversation.check_fits(demand.length, demand.visual, demand.inside, settings)
    slots = _empty_slots(loaded)
    calls = _prefill(slots, seen, demand.length, loaded.manifest, settings)
    context = float(slots.occupied.mean())
    steps = _decode(slots, options.max_tokens - 1, settings)
    tower, inside = settings.link("tower"), settings.link("inside")
    work = Workload(
        text_tokens=len(ids),
        images=headers,
        resolution=settings.resolution if images else None,
        visual_tokens=demand.available,
        visual_tokens_kept=demand.kept,
        selector=tower.method if tower and demand.kept < demand.available else None,
        schedule=inside.method if inside and demand.inside < demand.visual else None,
        prefill=calls,
        context=context,
        most_context=float(settings.kv_budget.mean()),
        evicts=settings.evicts,
        completion_tokens=steps + 1,
    )
    prediction, notes = _predicted(loaded, work)
    small = conversation.slots
    return Count(
        prompt_tokens=demand.unpruned,
        visual_tokens=len(images) * demand.available,
        visual_tokens_kept=_last_layer(demand),
        completion_tokens=steps + 1,
        occupied_slots=int(slots.occupied.max()),
        slot_bytes=int(small.nbytes * slots.capacity.sum() / small.capacity.sum()),
        point=settings.point,
        backend=loaded.backend.name,
        work=work,
        prediction=prediction,
        notes=notes,
    )


def latency_key(bundle: Bundle, backend: Backend) -> LatencyKey:
    """What a latency measured here and now holds for."""
    board, power_mode = board_and_mode()
    return LatencyKey(
        bundle=bundle.digest,
        board=board,
        power_mode=power_mode,
        backend=backend.name,
        threads=backend.threads,
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


def _empty_slots(loaded: Loaded) -> Slots:
    """Books without memory."""
    dims = loaded.manifest.dims
    return Slots(dims, 1, lambda rows, capacity: NullStorage(dims, rows, capacity))


def _prefill(
    slots: Slots, seen: Counts, length: int, manifest: Manifest, settings: Settings
) -> tuple[PrefillCall, ...]:
    """The calls that read `length` tokens, as `Conversation.read` makes them.

    seen: [L], those of all tokens that a layer sees.
    """
    chunk, budget, calls = manifest.prefill_chunk, settings.kv_budget, []
    for start in range(0, length, chunk):
        new = np.minimum(seen, min(chunk, length - start))
        before = slots.occupied.max((1, 2))
        slots.make_room(new, most_slots(slots, new, settings, manifest.slots))
        after = np.minimum(before + new, slots.capacity)
        kept = np.minimum(after, budget.max(1))
        slots.occupied[:] = kept[:, None, None]
        calls.append(
            PrefillCall(
                tokens=float(new.mean()),
                occupied=float(before.mean()),
                given_up=float((after - kept).mean()),
            )
        )
    slots.shrink(budget.max(1))
    return tuple(calls)


def _decode(slots: Slots, steps: int, settings: Settings) -> int:
    """Fill `slots` by `steps` tokens; returns how many there is room for."""
    budget = settings.kv_budget
    if not settings.evicts:
        steps = min(steps, slots.room(budget))
    left, most, one_each = steps, budget.max(1), np.ones(len(budget), np.int64)
    while left > 0 and (slots.occupied.max((1, 2)) < most).any():
        slots.make_room(one_each, most)
        free = int((slots.capacity - slots.occupied.max((1, 2))).min())
        new = min(left, max(1, free))
        slots.occupied[:] = np.minimum(slots.occupied + new, budget[:, None])
        left -= new
    return steps
