"""The decode loop: sample, show, embed, step, commit, until every row has ended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tightrope.arrays import Floats
from tightrope.interface.calls import Call
from tightrope.runtime.backends.backend import Backend, Cancel
from tightrope.runtime.detokenizer import StreamDecoder
from tightrope.runtime.embeddings import Embeddings
from tightrope.runtime.sampling import Sampler
from tightrope.runtime.settings import Settings
from tightrope.runtime.slots import Slots


class Row:
    """One answer while it grows."""

    def __init__(self, decoder: StreamDecoder) -> None:
        self.decoder = decoder
        self.token_ids: list[int] = []
        self.pieces: list[str] = []
        self.finish_reason: str | None = None

    def push(self, token_id: int, end_ids: frozenset[int], max_tokens: int) -> str:
        """Take the next token; returns the text that it lets be shown."""
        self.token_ids.append(token_id)
        if token_id in end_ids:
            return self.end("stop")
        piece = self.decoder.push(token_id)
        if self.decoder.stopped:
            self.finish_reason = "stop"
        elif len(self.token_ids) >= max_tokens:
            return self._shown(piece) + self.end("length")
        return self._shown(piece)

    def end(self, reason: str) -> str:
        """Finish for `reason`; returns text that was held back."""
        self.finish_reason = reason
        return self._shown(self.decoder.finish())

    def _shown(self, piece: str) -> str:
        if piece:
            self.pieces.append(piece)
        return piece

    @property
    def text(self) -> str:
        """All that was shown."""
        return "".join(self.pieces)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """How a request's tokens are chosen and where they end."""

    sampler: Sampler
    max_tokens: int
    end_ids: frozenset[int]


def decode(
    backend: Backend,
    slots: Slots,
    logits: Floats,
    position: int,
    rows: Sequence[Row],
    decoding: Decoding,
    settings: Settings,
    embeddings: Embeddings,
    cancel: Cancel,
) -> Iterator[str]:
    """Run all rows to their ends, yielding what the first row shows token by token.

    logits [1,vocab] or [N,vocab] of the token before `position`. Every sampled token but a row's
    last one is in the slots afterwards.
    """
    count = len(rows)
    ordinal = np.full((count, 1), position, np.int32)
    one_each = np.ones(slots.dims.num_hidden_layers, np.int64)
    most = settings.kv_budget.max(1)
    # Without eviction generation ends where the slots do; counted here, not looked up a token.
    room = int((settings.kv_budget - slots.occupied.max(1)).min())
    ahead = 0
    while True:
        tokens = decoding.sampler(logits)
        shown = ""
        for i, row in enumerate(rows):
            if row.finish_reason is None:
                piece = row.push(int(tokens[i]), decoding.end_ids, decoding.max_tokens)
                shown = piece if i == 0 else shown
        yield shown
        going = [row.finish_reason is None for row in rows]
        if not any(going):
            return
        if cancel.asked or (not settings.evicts and room < 1):
            reason = "cancelled" if cancel.asked else "length"
            held = [row.end(reason) for row in rows if row.finish_reason is None]
            if going[0]:
                yield held[0]
            return
        ordinal[:, 0] = position if count == 1 else np.where(going, position, -1)
        if ahead < 1:
            slots.make_room(one_each, most)
            ahead = max(1, int((slots.capacity - slots.occupied.max((1, 2))).min()))
        call = Call(
            embeddings(tokens)[:, None],
            ordinal,
            ordinal.astype(np.int64),
            settings.kv_budget,
            settings.policy,
        )
        logits, update = backend.decode(slots, call)
        slots.commit(update)
        position, room, ahead = position + 1, room - 1, ahead - 1
