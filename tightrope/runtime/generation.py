"""The decode loop: choose, show, control, embed, step, commit, until every row has ended."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tightrope.arrays import Floats, Indices
from tightrope.inputs.positions import following
from tightrope.interface.calls import Call, no_levels
from tightrope.runtime.answer import FinishReason, Sample, Stop, TokenLogprob
from tightrope.runtime.backends.backend import Backend
from tightrope.runtime.controls import Control, Draft, Force, State
from tightrope.runtime.detokenizer import StreamDecoder
from tightrope.runtime.likeliest import Logits, whole
from tightrope.runtime.logprobs import Logprobs
from tightrope.runtime.settings import Settings
from tightrope.runtime.slots import Slots
from tightrope.runtime.thought import Thought

Embed = Callable[[npt.ArrayLike], Floats]
Choose = Callable[[Logits], Indices]
"""Token ids [n] of logits [n,vocab], or of [1,vocab] that all rows share."""


class Row:
    """One answer while it grows."""

    def __init__(
        self, decoder: StreamDecoder, thought: Thought, logprobs: Logprobs | None = None
    ) -> None:
        self.decoder, self.thought, self.logprobs = decoder, thought, logprobs
        self.token_ids: list[int] = []
        self.forced: deque[int] = deque()
        """Tokens that are taken before any is sampled."""
        self.injected = 0
        """Of the tokens, how many were."""
        self.shortened = False
        self.draft: tuple[Sequence[int], Sequence[int]] = ((), ())
        """What would have closed its thought on the way, and the answer that would have come."""
        self.drafted = 0
        """Of the tokens, how many are that answer's: they were never read behind the others."""
        self.finish_reason: FinishReason | None = None
        self.stop: Stop | None = None
        self._pieces: list[str] = []

    def push(self, token_id: int, forced: bool = False) -> str:
        """Take the next token; returns the text that it lets be shown."""
        self.token_ids.append(token_id)
        self.thought.push(token_id, forced)
        self.injected += forced
        return self._shown(self.decoder.push(token_id))

    def end(self, reason: FinishReason, stop: Stop | None = None) -> str:
        """Finish for `reason`; returns text that was held back."""
        cut = self.shortened and reason in ("stop", "length")
        self.finish_reason, self.stop = ("deadline", None) if cut else (reason, stop)
        shown = ""
        if reason == "deadline" and self.thought.open:
            close, answer = self.draft
            self.drafted = len(close) + len(answer)
            shown = "".join([self.push(token, forced=True) for token in close])
            shown += "".join([self.push(token) for token in answer])
        return shown + self._shown(self.decoder.finish())

    def _shown(self, piece: str) -> str:
        if piece:
            self._pieces.append(piece)
        return piece

    @property
    def read(self) -> list[int]:
        """Tokens that are in the slots once it has ended."""
        return self.token_ids[: len(self.token_ids) - 1 - self.drafted]

    @property
    def text(self) -> str:
        """All that was shown."""
        return "".join(self._pieces)

    @property
    def sample(self) -> Sample:
        """The answer as it stands."""
        return Sample(
            text=self.text,
            token_ids=tuple(self.token_ids),
            finish_reason=self.finish_reason or "cancelled",
            stop=self.stop,
            logprobs=None if self.logprobs is None else tuple(self.logprobs.taken),
        )

    def fresh_logprobs(self) -> tuple[TokenLogprob, ...]:
        """Those that were not handed out before; none where none were asked for."""
        return () if self.logprobs is None else self.logprobs.fresh()


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Where a generation begins."""

    logits: Floats
    """[1,vocab] or [N,vocab] after the prompt"""
    ordinal: int
    """Of the first generated token."""
    rope_delta: int = 0


class Generation:
    """Rows that are decoded together over the same slots.

    Every token but a row's last one is in the slots afterwards.
    """

    def __init__(
        self,
        backend: Backend,
        slots: Slots,
        start: Start,
        rows: Sequence[Row],
        choose: Choose,
        embed: Embed,
        controls: Sequence[Control],
        settings: Settings,
    ) -> None:
        self._backend, self._slots, self._settings = backend, slots, settings
        self._rows, self._choose, self._embed = rows, choose, embed
        self._controls = controls
        self._logits: Logits = start.logits
        self._ordinal, self._delta = start.ordinal, start.rope_delta
        self._one_each = np.ones(slots.dims.num_hidden_layers, np.int64)
        self._most = settings.kv_budget.max(1)
        self._levels = no_levels(slots.dims, len(rows), 1)
        # Both are counted down, not looked up a token.
        self._room = settings.room(slots, start.ordinal)
        self._allocated = 0

    @property
    def done(self) -> bool:
        """Whether every row has ended."""
        return all(row.finish_reason is not None for row in self._rows)

    def run(self) -> Iterator[str]:
        """What the first row shows, token by token, until all have ended."""
        yield self._take()
        while not self.done:
            self._step()
            yield self._take()

    def _take(self) -> str:
        """Give every row that goes on its next token; returns what the first row shows."""
        tokens = self._choose(self._logits)
        shown = ""
        for i, row in enumerate(self._rows):
            if row.finish_reason is None:
                forced = bool(row.forced)
                if forced:
                    tokens[i] = row.forced.popleft()
                if row.logprobs is not None:
                    self._logits = logits = whole(self._logits)
                    row.logprobs.note(logits[0 if len(logits) == 1 else i], int(tokens[i]))
                piece = row.push(int(tokens[i]), forced)
                piece += self._controlled(row)
                shown = piece if i == 0 else shown
        self._tokens = tokens
        return shown

    def _controlled(self, row: Row) -> str:
        thought = row.thought
        state = State(
            row.token_ids,
            row.decoder.stopped_by,
            thought.tokens if thought.open else None,
            bool(row.forced),
            self._room,
        )
        for control in self._controls:
            if (wish := control(state)) is None:
                continue
            if isinstance(wish, Force):
                row.forced.extend(wish.token_ids)
                row.shortened |= wish.shortens
                return ""
            if isinstance(wish, Draft):
                row.draft = self._drafted(row.token_ids[-1], wish)
                return ""
            return row.end(wish.reason, wish.stop)
        return ""

    def _drafted(self, newest: int, wish: Draft) -> tuple[Sequence[int], Sequence[int]]:
        """The likeliest tokens behind those of `wish`; nothing else knows of them afterwards."""
        before = self._logits, self._ordinal, self._room, self._slots
        if self._settings.gives_up.any():  # what is given up cannot be had back
            self._slots, mark = self._slots.fork(1), None
        else:
            mark = self._slots.mark()
        tokens, forced = list[int](), deque(wish.token_ids)
        self._tokens = np.array([newest])
        while len(tokens) < len(wish.token_ids) + wish.most and not wish.late():
            self._step()
            likeliest = forced.popleft() if forced else whole(self._logits)[0].argmax()
            self._tokens = np.array([likeliest])
            tokens.append(int(self._tokens[0]))
            if tokens[-1] in wish.ends:
                break
        self._logits, self._ordinal, self._room, self._slots = before
        if mark is not None:
            self._slots.rollback(mark)
        self._allocated = 0
        answer = tokens[len(wish.token_ids) :]
        return (wish.token_ids, answer) if answer else ((), ())

    def _step(self) -> None:
        """Read the newest tokens; a row that has ended is padding."""
        if self._allocated < 1:
            self._slots.make_room(self._one_each, self._most)
            free = self._slots.capacity - self._slots.occupied.max((1, 2))
            self._allocated = max(1, int(free.min()))
        going = [row.finish_reason is None for row in self._rows]
        ordinal = np.where(going, self._ordinal, -1).astype(np.int32)[:, None]
        call = Call(
            self._embed(self._tokens)[:, None],
            ordinal,
            following(ordinal, self._delta, self._slots.dims.rope_axes),
            self._settings.kv_budget,
            self._settings.policy,
            deepstack=self._levels,
            query_reach=ordinal if self._slots.dims.reach else None,
        )
        self._logits, update = self._backend.decode(self._slots, call)
        self._slots.commit(update)
        self._ordinal, self._room = self._ordinal + 1, self._room - 1
        self._allocated -= 1
