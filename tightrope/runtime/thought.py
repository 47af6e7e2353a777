"""The thought that some models write before their answer: what opens it, and what closes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tightrope.errors import InputError
from tightrope.runtime.tokenizer import Tokenizer

BEGIN, END = "<think>", "</think>"
"""As DeepSeek-R1, Qwen3, SmolLM3 and their like write it."""

NoThought = Callable[[], list[int]]
"""Token ids of a prompt whose thought the template leaves out; raises InputError if it cannot."""


def after_thought(text: str) -> str | None:
    """What follows the thought; None where a thought was begun and never ended."""
    said = text.rpartition(END)[2]
    return None if BEGIN in said else said.strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """What a bundle's thoughts are known by, as token ids."""

    begin: int
    end: int
    close: tuple[int, ...]
    """What ends a thought that has to end now; `end` is among them."""

    def opened(self, prompt: Sequence[int]) -> bool:
        """Whether the prompt ends inside a thought, as where a template opens it."""
        last = next((token for token in reversed(prompt) if token in (self.begin, self.end)), None)
        return last == self.begin


def find_marks(tokenizer: Tokenizer, no_thought: NoThought) -> Marks | None:
    """The marks of a model that thinks; None where its vocabulary has none.

    A thought is closed the way in which the template writes one that is empty:

        <think> \\n\\n </think> \\n\\n     closed by    \\n </think> \\n\\n
    """
    if not (tokenizer.knows(BEGIN) and tokenizer.knows(END)):
        return None
    begin, end = tokenizer.token_id(BEGIN), tokenizer.token_id(END)
    try:
        ids = no_thought()
    except InputError:  # the template knows no way to leave it out: as most write it
        ids = []
    last = len(ids) - 1 - ids[::-1].index(end) if end in ids else None
    if last is None:
        after = tokenizer.encode_within("\n\n")
        between = "\n"
    else:
        after = ids[last + 1 :]
        first = max((place for place in range(last) if ids[place] == begin), default=last)
        between = tokenizer.decode(ids[first + 1 : last])
    before = tokenizer.encode_within("\n") if between.endswith("\n") else []
    return Marks(begin=begin, end=end, close=(*before, end, *after))


class Thought:
    """Where one answer stands: before, in or behind its thought."""

    def __init__(self, marks: Marks | None, opened: bool = False) -> None:
        """opened: whether the prompt ends inside it."""
        self._marks = marks
        self.open = opened
        self.tokens = 0
        """Generated inside thoughts, their marks not counted."""

    def push(self, token_id: int, forced: bool = False) -> None:
        """Take the answer's next token. forced: as part of what closes a thought."""
        if self._marks is None:
            return
        if token_id == self._marks.begin:
            self.open = True
        elif token_id == self._marks.end:
            self.open = False
        elif self.open and not forced:
            self.tokens += 1
