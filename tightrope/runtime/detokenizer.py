"""Token ids to text while they are made: whole characters, nothing that a stop string may take."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tightrope.errors import InputError
from tightrope.runtime.tokenizer import Tokenizer

# Stand for control tokens in stop strings, where they have text: Unicode's noncharacters, which no
# text holds.
_MARKS = tuple(map(chr, range(0xFDD0, 0xFDF0)))

# Tokens decoded anew with each token, and how many of them stay when there are more. UTF-8 falls
# into step within a character, at most 4 bytes, and a byte-level token has at least one.
_LONGEST_WINDOW = 16
_CONTEXT = 8

_REPLACEMENT = "\ufffd"
_BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")


class StreamDecoder:
    """The text of one answer, piece by piece.

    The pieces joined are the text of all tokens, control tokens left out, cut before the first
    stop string to be completed. Each token costs the same, however long the text is.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        stop: Sequence[str] = (),
        hidden: frozenset[int] = frozenset(),
    ) -> None:
        """hidden: ids that have no text, besides control tokens.

        Raises InputError for stop strings that are empty or no strings.
        """
        many = isinstance(stop, Sequence) and not isinstance(stop, str)
        if not many or not all(isinstance(text, str) and text for text in stop):
            raise InputError(f"stop is {stop!r}; accepted: a list of strings, none of them empty")
        self.stopped_by: str | None = None
        """The first stop string to be completed; what follows it is not text of the answer."""
        self._tokenizer = tokenizer
        self._hidden = tokenizer.special_ids | hidden
        self._marks = _marks(tokenizer, self._hidden, stop)
        self._stop = {self._marked(text): text for text in stop}
        self._window: list[int] = []
        self._given = 0
        self._held = ""

    def push(self, token_id: int) -> str:
        """Takes the next token; returns the text that can be shown now, often "" or a word."""
        token = self._tokenizer.token(token_id)
        if self.stopped_by is not None or token is None:
            return ""
        if token_id in self._hidden:
            return self._release(self._marks[token]) if token in self._marks else ""
        self._window.append(token_id)
        # A run of byte tokens is decoded as one: a later byte may make all of it invalid.
        if _BYTE_TOKEN.fullmatch(token):
            return ""
        text = self._tokenizer.decode(self._window)
        certain = _certain(text)
        piece, self._given = text[self._given : certain], certain
        self._shorten_window()
        return self._release(piece)

    def finish(self) -> str:
        """The rest of the text, once no token follows."""
        if self.stopped_by is not None:
            return ""
        piece = self._tokenizer.decode(self._window)[self._given :]
        self._window, self._given = [], 0
        shown = self._release(piece)
        rest, self._held = self._held, ""
        return shown + self._unmarked(rest)

    def _shorten_window(self) -> None:
        """Drops old tokens; those that stay give the next ones their context.

        They decide whether a space goes before the next token, so they must have text.
        """
        if len(self._window) <= _LONGEST_WINDOW:
            return
        text = self._tokenizer.decode(self._window[-_CONTEXT:])
        if text:
            self._window = self._window[-_CONTEXT:]
            self._given = _certain(text)

    def _release(self, piece: str) -> str:
        """The part of the held text and the piece that no stop string can claim any more.

        piece: with marks where control tokens stand that a stop string names.
        """
        text = self._held + piece
        # (end, start) of each stop string: the first to be completed counts, else the cut would
        # depend on how the text falls into tokens.
        found = [(text.find(stop) + len(stop), text.find(stop), stop) for stop in self._stop]
        found = [(end, start, stop) for end, start, stop in found if start >= 0]
        if found:
            _, start, stop = min(found)
            self.stopped_by, self._held = self._stop[stop], ""
            return self._unmarked(text[:start])
        shown = len(text) - max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[shown:]
        return self._unmarked(text[:shown])

    def _marked(self, stop: str) -> str:
        """A stop string as it is looked for."""
        for token, mark in self._marks.items():
            stop = stop.replace(token, mark)
        return stop

    def _unmarked(self, text: str) -> str:
        """What is shown of a text: control tokens have none."""
        for mark in self._marks.values():
            text = text.replace(mark, "")
        return text


def _marks(tokenizer: Tokenizer, hidden: frozenset[int], stop: Sequence[str]) -> dict[str, str]:
    """A character for each hidden token that a stop string names, the longest first."""
    texts = {tokenizer.token(token_id) for token_id in hidden}
    named = {text for text in texts if text and any(text in string for string in stop)}
    # Beyond the noncharacters no mark is left, and a stop string of so many tokens never matches.
    ordered = sorted(named, key=lambda text: (-len(text), text))[: len(_MARKS)]
    return dict(zip(ordered, _MARKS, strict=False))


def _certain(text: str) -> int:
    """How many characters no later token can change.

    A replacement character at the end may be the beginning of a character cut in two.
    """
    return len(text) - text.endswith(_REPLACEMENT)


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` with which `stop` begins."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
