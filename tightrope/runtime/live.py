"""What requests really take, kept in the state folder behind their backs.

A request leaves a few numbers in a queue once its answer is handed out. One thread of the process
writes them, some seconds' worth at once.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from tightrope.errors import ProfileError
from tightrope.jetson.place import board_and_mode
from tightrope.live_file import KEPT, AnyEntry, Entry, LiveRequest, Value, append, live_file
from tightrope.quality_file import point_text
from tightrope.runtime.engine import at_end
from tightrope.runtime.key import latency_key

if TYPE_CHECKING:
    from pathlib import Path

    from tightrope.bundle import Bundle
    from tightrope.latency_file import LatencyKey
    from tightrope.runtime.backends.backend import Backend
    from tightrope.runtime.finished import Finished
    from tightrope.runtime.loaded import Loaded

BATCH_SECONDS = 5.0
"""So long what was put waits for more: a flash card is written seldom."""
EXIT_SECONDS = 10.0
"""So long the interpreter's end waits for what is to be written."""

_point_text = lru_cache(maxsize=256)(point_text)


class Ring:
    """Where one model's requests leave what they took."""

    def __init__(self, bundle: Bundle, backend: Backend, say: Callable[[str], object]) -> None:
        """say: hands a text to whoever reads the next answer's notes."""
        # Neither the bundle nor the backend is held: what waits for the disk may wait long.
        self._key, self._file, self._say = latency_key(bundle, backend), live_file(bundle), say
        self._warm: set[tuple[object, ...]] = set()
        self._told: set[str] = set()

    def __call__(self, finished: Finished) -> None:
        """Keep what a request took; a watcher of the model."""
        settings, answer = finished.settings, finished.answer
        seen = settings.resolution if finished.images else None
        kind = (seen, settings.point.selector, settings.evicts)
        cold = kind not in self._warm
        self._warm.add(kind)
        if finished.trial:
            return
        samples = answer.samples or (answer,)
        self.put(
            LiveRequest(
                point=_point_text(settings.point),
                num_ids=finished.num_ids,
                images=tuple(
                    image.header if new else replace(image.header, known=True)
                    for image, new in zip(finished.images, finished.new, strict=True)
                ),
                completion_tokens=len(samples[0].token_ids),
                answers=len(samples),
                marks=tuple((mark.num_ids, mark.num_images) for mark in finished.marks),
                reused=finished.reused,
                wholes=finished.wholes,
                later_turn=answer.usage.cached_tokens > 0 and not finished.reused,
                cold=cold,
                took=answer.timings.stages(finished.waited_ms),
                energy_j=answer.energy_j,
                throttled=() if answer.spent is None else answer.spent.throttled,
                over_current=0 if answer.spent is None else answer.spent.over_current,
            )
        )

    def put(self, value: Value) -> None:
        """Keep it: written soon, by another thread."""
        WRITER.put(self, Entry(time_s=time.time(), value=value))

    def place(self) -> tuple[Path, LatencyKey]:
        """The file and the key of now: a board's power mode may have changed."""
        board, power_mode = board_and_mode()
        return self._file, replace(self._key, board=board, power_mode=power_mode)

    def failed(self, error: ProfileError) -> None:
        """What was put could not be written: said once."""
        if (text := str(error)) not in self._told:
            self._told.add(text)
            self._say(text)


def keep_times(loaded: Loaded) -> Ring:
    """Have what requests take kept and, by planners that are opened from now on, planned by."""
    known = weakref.ref(loaded)

    def say(note: str) -> None:
        if (parts := known()) is not None:
            parts.say(note)

    loaded.live, ring = True, Ring(loaded.bundle, loaded.backend, say)
    loaded.watchers.append(ring)
    return ring


class Writer:
    """A thread that writes what is put, in batches."""

    def __init__(self, batch_s: float = BATCH_SECONDS) -> None:
        self._batch_s = batch_s
        self._waiting: SimpleQueue[tuple[Ring, AnyEntry] | threading.Event] = SimpleQueue()
        self._at_once = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._left: dict[Ring, list[AnyEntry]] = {}
        """What could not be written yet."""

    def put(self, ring: Ring, entry: AnyEntry) -> None:
        """Have it written within `batch_s`, or a little later."""
        self._waiting.put((ring, entry))
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(
                        target=self._serve, name="tightrope live", daemon=True
                    )
                    self._thread.start()

    def flush(self, timeout_s: float = EXIT_SECONDS) -> None:
        """Wait until what was put before is written, or could not be."""
        if self._thread is not None and self._thread.is_alive():  # a forked process has none
            done = threading.Event()
            self._waiting.put(done)
            self._at_once.set()
            done.wait(timeout_s)

    def _serve(self) -> None:
        while True:
            found = [self._waiting.get()]
            self._at_once.wait(self._batch_s)
            self._at_once.clear()
            while True:
                try:
                    found.append(self._waiting.get_nowait())
                except Empty:
                    break
            self._write([item for item in found if not isinstance(item, threading.Event)])
            for item in found:
                if isinstance(item, threading.Event):
                    item.set()

    def _write(self, found: list[tuple[Ring, AnyEntry]]) -> None:
        batches: defaultdict[Ring, list[AnyEntry]] = defaultdict(list, self._left)
        for ring, entry in found:
            batches[ring].append(entry)
        self._left = {}
        for ring, entries in batches.items():
            try:
                append(*ring.place(), entries)
            except ProfileError as error:
                self._left[ring] = entries[-KEPT:]
                ring.failed(error)


WRITER = Writer()
"""Of this process: all its models share it."""
at_end(WRITER.flush)
