"""Token ids to text while they are made: whole characters, nothing that a stop string may take."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tightrope.errors import InputError
from tightrope.runtime.tokenizer import Tokenizer

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
        self.stopped = False
        """Whether a stop string was completed; what follows it is not text of the answer."""
        self._tokenizer = tokenizer
        self._hidden = tokenizer.special_ids | hidden
        self._stop = tuple(stop)
        self._window: list[int] = []
        self._given = 0
        self._held = ""

    def push(self, token_id: int) -> str:
        """Takes the next token; returns the text that can be shown now, often "" or a word."""
        token = self._tokenizer.token(token_id)
        if self.stopped or token is None or token_id in self._hidden:
            return ""
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
        if self.stopped:
            return ""
        piece = self._tokenizer.decode(self._window)[self._given :]
        self._window, self._given = [], 0
        shown = self._release(piece)
        rest, self._held = self._held, ""
        return shown + rest

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
        """The part of the held text and the piece that no stop string can claim any more."""
        text = self._held + piece
        # (end, start) of each stop string: the first to be completed counts, else the cut would
        # depend on how the text falls into tokens.
        found = [(text.find(stop) + len(stop), text.find(stop)) for stop in self._stop]
        found = [(end, start) for end, start in found if start >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)[1]]
        shown = len(text) - max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[shown:]
        return text[:shown]


def _certain(text: str) -> int:
    """How many characters no later token can change.

    A replacement character at the end may be the beginning of a character cut in two.
    """
    return len(text) - text.endswith(_REPLACEMENT)


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` with which `stop` begins."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
