"""A bundle's parts, opened once and shared by all its requests."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from tightrope.budget import Budget
from tightrope.bundle import EMBEDDINGS, Bundle, Manifest
from tightrope.inputs.embeddings import Embeddings
from tightrope.inputs.positions import Rule, find_rule
from tightrope.jetson.telemetry import telemetry_here
from tightrope.runtime.backends.backend import Backend
from tightrope.runtime.baselines import BASELINES, Baselines
from tightrope.runtime.chunks import Chunks
from tightrope.runtime.engine import engine_of
from tightrope.runtime.finished import Watcher
from tightrope.runtime.heat import Heat
from tightrope.runtime.kept import IMAGE_BYTES, PREFIX_BYTES, make_way
from tightrope.runtime.language import Language
from tightrope.runtime.prefixes import Prefixes
from tightrope.runtime.slots import Slots
from tightrope.runtime.stopwatch import Clock
from tightrope.runtime.vision import Vision

MOST_UNSAID = 4
"""Notes that wait for an answer; older ones are dropped."""


class Loaded:
    """What a request needs of its bundle."""

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        clock: Clock,
        selectors: Baselines | None = None,
        image_bytes: int = IMAGE_BYTES,
        prefix_bytes: int = PREFIX_BYTES,
    ) -> None:
        """image_bytes, prefix_bytes: as for `Model`.

        Raises BundleError for a part that is damaged or does not fit the manifest.
        """
        self.baselines = {**BASELINES, **(selectors or {})}
        self.bundle, self.backend, self.clock = bundle, backend, clock
        self.engine = engine_of(backend.device)
        self.manifest: Manifest = bundle.manifest
        self.language = Language(bundle)
        with bundle.damaged(EMBEDDINGS):
            self.embeddings = Embeddings(
                bundle.file(EMBEDDINGS),
                self.manifest.embeddings,
                self.manifest.dims,
                self.language.embedding_scale,
                self.manifest.vision.separators if self.manifest.vision else 0,
            )
        self.watchers: list[Watcher] = []
        """Told of every finished request."""
        # What is recorded is asked for by the time of the request: a scripted clock has none.
        self.telemetry = telemetry_here() if clock is time.perf_counter else None
        """What looks at the board; None where it has no sensors."""
        self.live = False
        """Whether what requests take is kept, and planned by."""
        self.heat: Heat | None = None
        """What keeps the board below a ceiling; whoever loads it says so."""
        self._unsaid: deque[str] = deque(maxlen=MOST_UNSAID)
        self.planners: dict[str | None, Any] = {}
        """Those of its budgets, by the task they name; a Planner needs what is loaded, not the
        other way round."""
        self.rope: Rule = find_rule(self.manifest.positions)
        self.vision: Vision | None = None
        if (tower := self.manifest.tower) is not None:
            config = bundle.read_json("preprocessor.json")
            prepare = tower.prepare(config, bundle.read_arrays("positions.npz"))
            self.vision = Vision(backend, tower, prepare, self.baselines, image_bytes)
        self.prefixes = Prefixes(prefix_bytes)
        self.chunks = Chunks(self.manifest.prefill_chunk)
        """Of its prompts; whoever shares the device among many bounds the time of a call."""

    def detail(self, budget: Budget | None) -> float:
        """As of `SourceImage`; 0 without a budget: all of an image, as Hugging Face decodes it."""
        return 0.0 if budget is None or self.vision is None else self.vision.detail

    def wholes(self, token_ids: Sequence[int]) -> tuple[int, ...]:
        """Places of images that see themselves whole; none where they see as text does."""
        if not self.manifest.dims.reach:
            return ()
        mark = self.language.placeholder
        return tuple(place for place, token in enumerate(token_ids) if token == mark)

    def make_way(self, slots: Slots, rows: int, tokens: int) -> None:
        """Give up what is kept of earlier requests where `slots` could not take so many tokens.

        Slots are copied when they grow: for a moment they are there twice.
        """
        each = slots.nbytes // int(slots.capacity.mean())
        needed = 2 * rows * each * min(tokens, self.manifest.slots)
        images = [] if self.vision is None else [self.vision.kept]
        make_way(needed, self.prefixes.kept, *images)

    def say(self, note: str) -> None:
        """Have the next answer say it among its notes."""
        self._unsaid.append(note)

    def unsaid(self) -> tuple[str, ...]:
        """What was to be said, the backend's notes first; it is handed out once."""
        notes = []
        while self.backend.notes:
            notes.append(self.backend.notes.pop(0))
        while self._unsaid:
            notes.append(self._unsaid.popleft())
        return tuple(notes)


__all__ = ["Baselines", "Loaded"]
