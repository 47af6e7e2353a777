"""Requests answered again without pruning, in idle moments: how far answers agree with those.

Only where somebody switched it on. What is to be repeated waits in memory, its images too, and a
request of somebody's ends a repetition at once; of what was said nothing is kept but whether it was
the same.
"""

from __future__ import annotations

import copy
import random
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tightrope.errors import TightropeError
from tightrope.live_file import Agreement
from tightrope.quality_file import point_text
from tightrope.runtime.agreement import same_answer, token_agreement
from tightrope.runtime.cancel import Cancel
from tightrope.runtime.candidates import unpruned
from tightrope.runtime.finished import Finished
from tightrope.runtime.live import Ring
from tightrope.runtime.loaded import Loaded
from tightrope.runtime.options import ImageSource, Options, Prompt
from tightrope.runtime.request import Request
from tightrope.runtime.settings import resolve

MOST_BYTES = 64 << 20
"""Of images that wait; the oldest request is dropped for a newer one."""
MOST_WAITING = 16
"""Requests."""
_WHOLE = ("stop", "length")
"""Ways to end that nobody forced upon an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Said:
    """A request and what was answered."""

    prompt: Prompt
    images: tuple[ImageSource, ...]
    nbytes: int
    """Of the images."""
    options: Options
    point: str
    text: str
    token_ids: tuple[int, ...]


class Shadow:
    """A share of one model's requests, and how they were answered."""

    def __init__(self, loaded: Loaded, ring: Ring, share: float) -> None:
        """share: of all that were pruned, 0..1; ring: where agreements go."""
        self._loaded, self._ring, self._share = loaded, ring, share
        self._point = unpruned(loaded.manifest)
        self._everything = resolve(self._point, loaded.manifest).point
        self._chance = random.Random()
        self._lock = threading.Lock()
        self._waiting: deque[_Said] = deque()

    def __call__(self, finished: Finished) -> None:
        """Have it answered again, if it is one of the share; a watcher of the model."""
        if self._compares(finished) and self._chance.random() < self._share:
            answer = finished.answer
            self._hold(
                _Said(
                    prompt=copy.deepcopy(finished.prompt),  # its owner may go on writing to it
                    images=tuple(entry.source for entry in finished.images),
                    nbytes=sum(entry.nbytes for entry in finished.images),
                    options=replace(finished.options, budget=None, point=self._point),
                    point=point_text(finished.settings.point),
                    text=answer.text,
                    token_ids=answer.token_ids,
                )
            )
            self._loaded.engine.offer(_Again(self))

    def _compares(self, finished: Finished) -> bool:
        """Whether pruning alone can make the other answer differ."""
        options, answer = finished.options, finished.answer
        greedy = options.temperature == 0 and options.n == 1 and finished.alone
        whole = answer.finish_reason in _WHOLE and not finished.trial
        return greedy and whole and finished.settings.point != self._everything

    def _hold(self, said: _Said) -> None:
        with self._lock:
            self._waiting.append(said)
            while len(self._waiting) > MOST_WAITING or self.nbytes > MOST_BYTES:
                self._waiting.popleft()

    @property
    def nbytes(self) -> int:
        """Of all images that wait."""
        return sum(said.nbytes for said in self._waiting)

    def repeat(self, cancel: Cancel) -> None:
        """Answer the newest that waits; where `cancel` is asked it waits on."""
        with self._lock:
            if not self._waiting:
                return
            said = self._waiting.pop()
        try:
            request = Request(self._loaded, said.prompt, said.images, said.options, trial=True)
            with cancel.interrupting(request.cancel.ask):
                *_, last = request.run()
        except TightropeError as error:
            self._loaded.say(f"a request could not be answered again without pruning: {error}")
            return
        answer = last.answer
        assert answer is not None, "the last piece carries the answer"
        if answer.finish_reason not in _WHOLE:
            self._hold(said)
            self._loaded.engine.offer(_Again(self))
            return
        agrees = token_agreement(said.token_ids, answer.token_ids)
        same = bool(same_answer(said.text, answer.text))
        self._ring.put(Agreement(point=said.point, same=same, token_agreement=agrees))


class _Again:
    """One repetition, as work for the engine."""

    def __init__(self, shadow: Shadow) -> None:
        # What waits for an idle moment must not keep a model that nobody holds any more.
        self.cancel, self._shadow = Cancel(), weakref.ref(shadow)

    def run(self) -> Iterator[None]:
        if (shadow := self._shadow()) is not None:
            shadow.repeat(self.cancel)
        return iter(())
