"""A conversation over several turns on one set of slots."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tightrope.errors import InputError
from tightrope.runtime.answer import Answer, Piece
from tightrope.runtime.conversation import Conversation
from tightrope.runtime.images import ImageSource, check_list

if TYPE_CHECKING:
    from tightrope.runtime.model import Model


class Chat:
    """Turns that build on each other.

    A turn reads only its own tokens if the template writes the earlier ones as before; otherwise
    the conversation is read again from its start, and the answer's notes say so.
    """

    def __init__(self, model: Model, system: str | None = None) -> None:
        self._model = model
        self._conversation = Conversation(model.backend, model.bundle.manifest)
        self.messages: list[dict[str, Any]] = []
        """What was said so far; images stand in it as {"type": "image"} parts."""
        self._images: list[ImageSource] = []
        if system is not None:
            self.messages.append({"role": "system", "content": system})

    def ask(self, text: str, images: Sequence[ImageSource] = (), **options: Any) -> Answer:
        """The answer to the next turn; options as for `Model.generate`, without n."""
        answer: Answer | None = None
        for piece in self.stream(text, images, **options):
            answer = piece.answer
        assert answer is not None, "the last piece carries the answer"
        return answer

    def stream(
        self, text: str, images: Sequence[ImageSource] = (), **options: Any
    ) -> Iterator[Piece]:
        """The same as it grows; a turn counts once it has ended."""
        from tightrope.runtime.model import Options, Stream

        check_list(images)
        if not isinstance(text, str) or not (text or images):
            raise InputError(f"text is {text!r}; accepted: what the user says next")
        if options.get("n", 1) != 1:
            raise InputError(f"n is {options['n']!r}; a chat goes on from one answer: leave it out")
        parts = [{"type": "image"}] * len(images) + [{"type": "text", "text": text}]
        content: Any = parts if images else text
        messages = [*self.messages, {"role": "user", "content": content}]
        seen = [*self._images, *images]
        stream = Stream(self._model, messages, seen, Options(**options), self._conversation)
        for piece in stream:
            if piece.answer is not None:
                self._images = seen
                said = {"role": "assistant", "content": piece.answer.text}
                self.messages = [*messages, said]
            yield piece
