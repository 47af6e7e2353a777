"""Every graph of a bundle, called once with inputs that are the same on every machine.

A trial is named by the graph's role and method: vision, select-visionzip, prefill, prefill-fastv,
decode. Where it is recorded, the host's graph gives what is kept; what its standard graph gives in
ONNX Runtime on the CPU, in float16 unless the bundle is float32, says by how much another backend
may differ. Of `selftest.npz`, for each trial:

    NAME.PART         a sample of an output, float32, or all of one that counts places, int64
    NAME.tolerance    float32 [], of the largest number of each sample
    NAME.agreement    float32 [], of a selector: the share of kept tokens that both graphs keep
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import PIL.Image

from tightrope.arrays import Array, Counts
from tightrope.bundle import Manifest
from tightrope.inputs.positions import following
from tightrope.interface.calls import Call, Selection, Update, no_levels
from tightrope.interface.names import GraphName, Role
from tightrope.interface.tensors import VISUAL_EMBEDS
from tightrope.plugins.slot_attention.policies import NEWEST, unbudgeted
from tightrope.runtime.backends.backend import Backend, VisualTokens
from tightrope.runtime.cancel import Cancel
from tightrope.runtime.likeliest import whole
from tightrope.runtime.loaded import Loaded
from tightrope.runtime.selftest.steps import drawn_picture, resolution_of
from tightrope.runtime.slots import Slots

Outcome = dict[str, Array]
"""By part: a sample of an output, or all of one that counts places."""
INDEX, EMBEDS = "index", "embeds"
"""Parts of a selector's outcome: kept places, and for each some of its numbers."""
SAMPLE = 256
_TOKENS, _VISUAL, _TEXT, _COLUMNS = 12, 4, 5, 8
_LEAST = 1e-6


def trial_names(manifest: Manifest) -> list[str]:
    """The trials of a bundle, in the order in which a request calls its graphs."""
    roles: list[tuple[Role, str]] = []
    if manifest.vision is not None:
        roles += [("vision", ""), *(("select", method) for method in manifest.selectors)]
    roles += [("prefill", ""), *(("prefill", schedule) for schedule in manifest.schedules)]
    roles.append(("decode", ""))
    return [str(GraphName("standard", *role)).partition(".")[2] for role in roles]


class Trials:
    """The trials of a bundle on one backend, each as work for the thread of its device."""

    def __init__(self, loaded: Loaded, backend: Backend) -> None:
        """backend: what computes, of the same bundle as `loaded`."""
        self._loaded, self._backend = loaded, backend
        self._seen: VisualTokens | None = None

    def outcome(self, name: str) -> Outcome:
        """What the graph of trial `name` gives; raises what the backend raises."""
        for outcome in self._loaded.engine.submit(_Work(self, name)):
            return outcome
        raise AssertionError("a trial that ends gives an outcome")

    def run(self, name: str) -> Outcome:
        """The same, on the thread that asks."""
        role, _, method = name.partition("-")
        if role == "vision":
            return self._vision()
        if role == "select":
            return self._select(method)
        return self._decode() if role == "decode" else self._prefill(method)

    def _vision(self) -> Outcome:
        seen = self._see()
        return {VISUAL_EMBEDS: _sample(seen.embeds)} | {
            name: _sample(signal) for name, signal in seen.signals.items()
        }

    def _see(self) -> VisualTokens:
        """The visual tokens of one drawn picture."""
        if self._seen is None:
            loaded, vision = self._loaded, self._loaded.vision
            assert vision is not None and loaded.manifest.vision is not None
            side = resolution_of(loaded.manifest) or loaded.manifest.vision.resolutions[0]
            picture = PIL.Image.fromarray(drawn_picture(*vision.tower.trial_size(side)))
            seen = self._backend.vision(vision.inputs([picture], side), Cancel())
            self._seen = vision.tokens(seen, picture.size, side)
        return self._seen

    def _select(self, method: str) -> Outcome:
        """Of drawn tokens: those of a picture are hardly apart, so that rounding would choose."""
        rng, seen = np.random.RandomState(2), self._see()
        # By name: backends give their outputs in orders of their own.
        signals = {name: _drawn(rng, seen.signals[name]) for name in sorted(seen.signals)}
        drawn = VisualTokens(_drawn(rng, seen.embeds), signals)
        width = self._loaded.manifest.dims.hidden_size
        text = rng.standard_normal((_TEXT, width)).astype(np.float32)
        keep = max(1, seen.embeds.shape[1] // 4)
        index, embeds = self._backend.select(method, drawn, text, keep)
        columns = np.linspace(0, width - 1, min(width, _COLUMNS)).astype(np.int64)
        return {INDEX: _whole(index[0]), EMBEDS: _host(embeds)[0][:, columns].astype(np.float32)}

    def _prefill(self, schedule: str) -> Outcome:
        slots, count = self._slots()
        selection = None
        if schedule:  # keeping all of them, or rounding would choose here too
            visual = np.arange(1, 1 + min(_VISUAL, count - 1))[None]
            stages = self._loaded.manifest.schedules[schedule]
            keeps = (visual.shape[1],) * len(stages)
            layers = tuple(stage.layer for stage in stages)
            selection = Selection(schedule, visual, keeps, layers)
        call = self._call(0, count, unbudgeted(len(slots.capacity)), selection)
        logits, update = self._backend.prefill(slots, call, Cancel())
        return _decoded(logits, update, count)

    def _decode(self) -> Outcome:
        """A token for which the oldest one has to leave."""
        slots, count = self._slots()
        youngest = np.tile(NEWEST, (len(slots.capacity), 1))
        prompt = self._call(0, count, youngest)
        slots.commit(self._backend.prefill(slots, prompt, Cancel())[1])
        logits, update = self._backend.decode(slots, self._call(count, 1, youngest))
        return _decoded(whole(logits), update, count)

    def _slots(self) -> tuple[Slots, int]:
        """Empty slots with room for so many tokens."""
        manifest, dims = self._loaded.manifest, self._loaded.manifest.dims
        count = max(2, min(_TOKENS, min(manifest.slots_by_layer) // 2))
        slots = Slots(dims, 1, self._backend.make_storage)
        each: Counts = np.full(dims.num_hidden_layers, count, np.int64)
        slots.make_room(each, np.full_like(each, manifest.slots))
        return slots, count

    def _call(
        self, start: int, count: int, policy: Array, selection: Selection | None = None
    ) -> Call:
        """`count` drawn tokens behind `start` others."""
        dims = self._loaded.manifest.dims
        ids = np.random.RandomState(3 + start).randint(0, dims.vocab_size, count)
        ordinals = np.arange(start, start + count, dtype=np.int32)[None]
        budget = count if start == 0 else start
        return Call(
            embeds=self._loaded.embeddings(ids.tolist())[None],
            query_position=ordinals,
            rope_position=following(ordinals, 0, dims.rope_axes),
            kv_budget=np.full((dims.num_hidden_layers, dims.num_key_value_heads), budget, np.int64),
            policy=policy,
            selection=selection,
            deepstack=no_levels(dims, 1, count),
            query_reach=ordinals if dims.reach else None,
        )


class _Work:
    """One trial, for the engine."""

    def __init__(self, trials: Trials, name: str) -> None:
        self.cancel = Cancel()
        self._trials, self._name = trials, name

    def run(self) -> Iterator[Outcome]:
        yield self._trials.run(self._name)


def _decoded(logits: Array, update: Update, count: int) -> Outcome:
    """Of a decoder's outputs: the slots' state up to where it is occupied."""
    target = update.target if isinstance(update.target, list) else [update.target]
    places = np.concatenate([_whole(layer).ravel() for layer in target])
    return {
        "logits": _sample(logits),
        "score": _sample(_host(update.next_score)[..., :count]),
        "target": places,
        "position": _whole(_host(update.next_position)[..., :count]).ravel(),
    }


def _drawn(rng: np.random.RandomState, like: Array) -> Array:
    """Positive numbers, as attention is, that lie apart."""
    return rng.standard_exponential(like.shape).astype(np.float32)


def _sample(array: Array) -> Array:
    flat = _host(array).ravel()
    places = np.linspace(0, flat.size - 1, min(flat.size, SAMPLE)).astype(np.int64)
    return flat[places].astype(np.float32)


def _whole(array: Array) -> Array:
    return _host(array).astype(np.int64)


def _host(array: Any) -> Array:
    """An array of a device, brought to the host."""
    return np.asarray(array.numpy() if hasattr(array, "numpy") else array)


def spread(mine: Outcome, theirs: Outcome) -> float:
    """Largest difference of a sample, as a share of its largest number; nan where one is none.

    Of a selector's tokens those are compared that both keep.
    """
    largest = 0.0
    for part, value in mine.items():
        if value.dtype.kind != "f":
            continue
        other = theirs[part]
        if INDEX in mine:
            _, here, there = np.intersect1d(mine[INDEX], theirs[INDEX], return_indices=True)
            value, other = value[here], other[there]
        if value.size:
            share = np.abs(other - value).max() / max(float(np.abs(value).max()), _LEAST)
            largest = float(np.maximum(largest, share))  # which keeps a nan
    return largest


def agreement(mine: Outcome, theirs: Outcome) -> float | None:
    """Share of a selector's kept tokens that both keep; None where nothing is selected."""
    if INDEX not in mine:
        return None
    return float(np.isin(mine[INDEX], theirs[INDEX]).mean())
