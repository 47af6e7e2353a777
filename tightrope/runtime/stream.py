"""An answer while it grows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from tightrope.arrays import Floats, Indices
from tightrope.runtime.answer import Answer, FinishReason, Piece
from tightrope.runtime.engine import Engine, Ticket
from tightrope.runtime.loaded import Loaded
from tightrope.runtime.options import ImageSource, Options, Prompt
from tightrope.runtime.request import Request


class Stream:
    """One running request: iterate it for pieces; `cancel` ends it from anywhere.

    It runs whether or not it is iterated. A stream that is closed, or that nobody holds any more,
    is cancelled.
    """

    def __init__(
        self, engine: Engine, request: Request, on_answer: Callable[[Answer], None] | None = None
    ) -> None:
        """on_answer: called with the answer before the last piece is handed out."""
        self._ticket: Ticket[Piece] = engine.submit(request, request.due)
        self._on_answer = on_answer

    def __iter__(self) -> Iterator[Piece]:
        return self

    def __next__(self) -> Piece:
        piece = next(self._ticket)
        if piece.answer is not None and self._on_answer is not None:
            self._on_answer(piece.answer)
        return piece

    def cancel(self, reason: FinishReason = "cancelled") -> None:
        """Stop: a running prefill is broken off, decoding ends within one token.

        The last piece still comes, its answer's finish_reason is `reason`.
        """
        self._ticket.cancel(reason)

    def close(self) -> None:
        """Stop, and hand out nothing more."""
        self._ticket.close()

    def answer(self) -> Answer:
        """The finished answer, once all pieces have come."""
        try:
            for piece in self:
                if piece.answer is not None:
                    return piece.answer
        except BaseException:  # an interrupted wait must not leave the request running
            self.close()
            raise
        raise AssertionError("the last piece carries the answer")


def start(
    loaded: Loaded,
    prompt: Prompt,
    images: Sequence[ImageSource],
    options: Options,
    choose: Callable[[Floats], Indices] | None = None,
    waited_s: float = 0.0,
    trial: bool = False,
) -> Stream:
    """A request of its own, submitted; raises InputError for what cannot be answered.

    choose: picks tokens instead of what `options` say. waited_s, trial: as for Request.
    """
    request = Request(
        loaded, prompt, images, options, choose=choose, waited_s=waited_s, trial=trial
    )
    return Stream(loaded.engine, request)
