"""What engines take of a board's memory, while they are built and while they answer, before either.

Bytes are counted from bundle.json where it says them and estimated where not; each line says which.
CPU and GPU of a Jetson share their memory, so that what the kernel calls available is what counts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tightrope.bundle import Manifest
from tightrope.errors import BackendError
from tightrope.interface.onnx import ITEM_BYTES
from tightrope.interface.tensors import INT8_SLOTS
from tightrope.jetson.facts import BoardFacts
from tightrope.jetson.roofline import weights_of

CONTEXT_BYTES = 300 << 20
"""Of CUDA's context and TensorRT's libraries; assumed."""
PROCESS_BYTES = 200 << 20
"""Of Python, numpy and the tokenizer; assumed."""
HEAD_SCRATCH = 1.73
"""Contiguous bytes that building one of the head's products takes, of its weights in float16; read
of others."""
COPIES = 3
"""Of a graph's weights while its engine is built: the parser's, the builder's, the plan's."""
DESKTOP_BYTES = 865_000_000
"""That a board has more without a desktop; NVIDIA's figure for an Orin Nano."""
_CMA_STEP = 64 << 20
_COUNTED, _ESTIMATED, _ASSUMED = "counted", "estimated from dims", "assumed"
_HEAD_SOURCE = "1.73 x 2 H and the tokens of one of its products, read of others"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryLine:
    """Something that takes memory."""

    what: str
    bytes: int
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """What is to be built, what it takes, and what there is."""

    alone: bool
    """Whether prefill reads single tokens as well, because there is no room for an engine more."""
    running: tuple[MemoryLine, ...]
    """While it answers."""
    building: tuple[MemoryLine, ...]
    """While the largest engine is built, each in a process of its own."""
    slot_bytes: int
    """Of the running ones, what one conversation's slots take at most."""
    contiguous_bytes: int
    """That building the head asks for in one piece."""
    available_bytes: int | None
    available_source: str
    cma_free_bytes: int | None
    measures: tuple[str, ...]
    """What would make it fit, where it does not, or make it safer."""

    @property
    def running_bytes(self) -> int:
        return sum(line.bytes for line in self.running)

    @property
    def building_bytes(self) -> int:
        return sum(line.bytes for line in self.building)

    @property
    def fits(self) -> bool:
        """Whether both fit; where nobody says what there is, they do."""
        most = max(self.running_bytes, self.building_bytes)
        return self.available_bytes is None or most <= self.available_bytes


def plan_memory(manifest: Manifest, facts: BoardFacts) -> MemoryPlan:
    """Both engines of the language model where they fit, else prefill alone; look at `fits`."""
    both = _plan(manifest, facts, alone=False)
    if both.fits:
        return both
    alone = _plan(manifest, facts, alone=True)
    chosen = alone if alone.fits else both
    return replace(chosen, measures=_measures(chosen, manifest))


def refuse_too_large(plan: MemoryPlan) -> None:
    """Raises BackendError where the engines would not fit: a board out of memory may hang."""
    if plan.fits or plan.available_bytes is None:
        return
    parts = (("answering", plan.running_bytes), ("building", plan.building_bytes))
    what, needed = max(parts, key=lambda part: part[1])
    raise BackendError(
        f"{what} takes {needed / 2**30:.1f} GiB, {plan.available_bytes / 2**30:.1f} GiB are "
        f"available: {'; or '.join(plan.measures)}"
    )


def _plan(manifest: Manifest, facts: BoardFacts, alone: bool) -> MemoryPlan:
    _, decoder = weights_of(manifest, of_tower=False)
    _, tower = weights_of(manifest, of_tower=True)
    dims = manifest.dims
    engines = [("prefill and single tokens" if alone else "prefill", decoder)]
    engines += [(f"prefill-{name}", decoder) for name in manifest.schedules]
    engines += [] if alone else [("decode", decoder)]
    engines += [("vision", tower)] if manifest.vision is not None else []
    slots = sum(manifest.slots_by_layer) * dims.num_key_value_heads * manifest.slot_bytes
    scratch = MemoryLine(
        what="scratch of one prefill call", bytes=_scratch(manifest), source=_ESTIMATED
    )
    fixed = (
        MemoryLine(what="CUDA and TensorRT", bytes=CONTEXT_BYTES, source=_ASSUMED),
        MemoryLine(what="Python", bytes=PROCESS_BYTES, source=_ASSUMED),
    )
    widest = manifest.head_columns or dims.vocab_size
    head = int(HEAD_SCRATCH * 2 * dims.hidden_size * widest)
    largest = max(size for _, size in engines)
    return MemoryPlan(
        alone=alone,
        running=(
            *(
                MemoryLine(what=f"weights of {name}", bytes=size, source=_COUNTED)
                for name, size in engines
            ),
            MemoryLine(what="slots at capacity", bytes=slots, source=_COUNTED),
            MemoryLine(what="the largest plan, while it is read", bytes=largest, source=_COUNTED),
            scratch,
            *fixed,
        ),
        building=(
            MemoryLine(
                what="the largest graph's weights, parsed, built and written",
                bytes=COPIES * largest,
                source=f"{COPIES} times what was counted",
            ),
            MemoryLine(what="scratch of the head", bytes=head, source=_HEAD_SOURCE),
            *fixed,
        ),
        slot_bytes=slots,
        contiguous_bytes=head,
        available_bytes=facts.memory_available_bytes,
        available_source=facts.source,
        cma_free_bytes=facts.cma_free_bytes,
        measures=_contiguous(head, facts),
    )


def _scratch(manifest: Manifest) -> int:
    """Scores of one layer before and after softmax in float32, and the widest activations twice."""
    dims, chunk = manifest.dims, manifest.prefill_chunk
    scores = 2 * dims.num_attention_heads * chunk * (manifest.slots + chunk)
    wide = 2 * chunk * 8 * dims.hidden_size
    return ITEM_BYTES["float32"] * (scores + wide + dims.vocab_size)


def _measures(plan: MemoryPlan, manifest: Manifest) -> tuple[str, ...]:
    """What would make it fit, what helps most first."""
    found = []
    if manifest.precision != "int4":
        found.append("export with --precision int4, which takes 0.28 of float16's weights")
    found.append(
        "stop the desktop, which gives back up to "
        f"{DESKTOP_BYTES / 1e6:.0f} MB: sudo systemctl isolate multi-user.target"
    )
    if manifest.kv_cache != INT8_SLOTS and manifest.plugins:
        found.append("export with --kv-cache int8, which takes about half of float16's slots")
    found.append(f"export with fewer --slots than {manifest.slots} or a smaller --prefill-chunk")
    if manifest.schedules:
        found.append("export without --schedule, each of which is an engine of its own")
    return (*found, *plan.measures)


def _contiguous(head: int, facts: BoardFacts) -> tuple[str, ...]:
    """The hint for memory in one piece, where the kernel has set too little aside."""
    free, total = facts.cma_free_bytes, facts.cma_bytes
    if free is None or total is None or head <= free:
        return ()
    wanted = -(-(total - free + head) // _CMA_STEP) * _CMA_STEP
    return (
        f"the head asks for {head >> 20} MB in one piece and {free >> 20} MB are free there: add "
        f"cma={wanted >> 20}M to the APPEND line of /boot/extlinux/extlinux.conf and reboot",
    )
