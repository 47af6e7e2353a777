"""Token ids to text while they are made: whole characters, nothing that a stop string may take."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tightrope.checks import shown
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
    stop string to be completed. A stop string in which a control token is written is found where
    the model says that token. Each token costs the same, however long the text is.
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
            raise InputError(
                f"stop is {shown(stop)}; accepted: a list of strings, none of them empty"
            )
        self.stopped_by: str | None = None
        """The stop string that was completed; what follows it is not text of the answer."""
        self._tokenizer = tokenizer
        self._hidden = tokenizer.special_ids | hidden
        self._stop = tuple(stop)
        written = tokenizer.special_strings if stop else ()
        self._control_stop = tuple(
            text for text in stop if any(control in text for control in written)
        )
        self._window: list[int] = []
        self._given = 0
        self._matched = 0
        self._held = ""
        self._visible: list[bool] = []

    def push(self, token_id: int) -> str:
        """Takes the next token; returns the text that can be shown now, often "" or a word."""
        token = self._tokenizer.token(token_id)
        if self.stopped_by is not None or token is None:
            return ""
        if token_id in self._hidden:
            if not self._control_stop or token_id not in self._tokenizer.special_ids:
                return ""
            # Bytes that may yet become another character stand before the control token.
            pending = self._tokenizer.decode(self._window)[self._given + self._matched :]
            self._matched += len(pending)
            return self._release(pending + token, visible=False)
        self._window.append(token_id)
        # A run of byte tokens is decoded as one: a later byte may make all of it invalid.
        if _BYTE_TOKEN.fullmatch(token):
            return ""
        text = self._tokenizer.decode(self._window)
        certain = _certain(text)
        piece, self._given, self._matched = text[self._given : certain], certain, 0
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
        return shown + self._take_visible(rest)

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

    def _release(self, piece: str, visible: bool = True) -> str:
        """The part of the held text and the piece that no stop string can claim any more.

        visible: False for a control token as it is written, which only stop strings see.
        """
        text = self._held + piece
        self._visible += [visible] * len(piece)
        places = [i for i, visible in enumerate(self._visible) if visible]
        plain = "".join(text[i] for i in places)
        # (end, start, stop string): the first to be completed counts, else the cut would depend
        # on how the text falls into tokens.
        found = [
            (places[start + len(stop) - 1] + 1, places[start], stop)
            for stop in self._stop
            if (start := plain.find(stop)) >= 0
        ]
        found += [
            (start + len(stop), start, stop)
            for stop in self._control_stop
            if (start := text.find(stop)) >= 0
        ]
        if found:
            _, start, self.stopped_by = min(found)
            self._held = ""
            return self._take_visible(text[:start])
        held = max((_overlap(plain, stop) for stop in self._stop), default=0)
        start = places[-held] if held else len(text)
        claimed = max((_overlap(text, stop) for stop in self._control_stop), default=0)
        start = min(start, len(text) - claimed)
        self._held = text[start:]
        return self._take_visible(text[:start])

    def _take_visible(self, text: str) -> str:
        """What can be seen of the beginning of the held text, which is given away."""
        seen = self._visible[: len(text)]
        del self._visible[: len(text)]
        return "".join(letter for letter, visible in zip(text, seen, strict=True) if visible)


def _certain(text: str) -> int:
    """How many characters no later token can change.

    A replacement character at the end may be the beginning of a character cut in two.
    """
    return len(text) - text.endswith(_REPLACEMENT)


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` with which `stop` begins."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
