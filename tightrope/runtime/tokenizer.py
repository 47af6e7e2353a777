"""Text to token ids and back, with control tokens that only the template can write."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import tokenizers

from tightrope.errors import BundleError, InputError
from tightrope.foreign import translated


class Tokenizer:
    """A `tokenizer.json` and the rules under which prompts are encoded with it.

    Safe to share between threads: `encode_special_tokens` is a switch on the tokenizer itself.
    """

    def __init__(
        self, path: Path | str, special_tokens: Mapping[str, str], add_special_tokens: bool
    ) -> None:
        """Reads the file.

        special_tokens: by name, such as {"bos_token": "<s>", "unk_token": "<unk>"}.
        add_special_tokens: whether a rendered prompt gets the tokens that the post-processor
        adds, such as a leading bos. Hugging Face's processors say True, its tokenizers False.
        Raises BundleError if the file is missing or no tokenizer.
        """
        self._tokenizer = _read(Path(path))
        self._lock = threading.Lock()
        self._add_special_tokens = add_special_tokens
        self._bos = special_tokens.get("bos_token")
        added = self._tokenizer.get_added_tokens_decoder()
        self._control = {number: token for number, token in added.items() if token.special}
        unknown = getattr(self._tokenizer.model, "unk_token", None)
        unknown = unknown or special_tokens.get("unk_token")
        self._unk_id = self._tokenizer.token_to_id(unknown) if unknown else None
        with _translated("cannot encode a text"):
            self._first_piece_differs = self._treats_first_piece_apart()

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids of the control tokens, which decoded text leaves out."""
        return frozenset(self._control)

    @property
    def special_strings(self) -> tuple[str, ...]:
        """How the control tokens are written in a rendered prompt."""
        return tuple(token.content for token in self._control.values() if token.content)

    def token_id(self, token: str) -> int:
        """The id of one token, given as it is written; BundleError if there is none."""
        number = self._tokenizer.token_to_id(token)
        if number is None:
            raise BundleError(f"tokenizer.json has no token {token!r}; export the bundle again")
        return number

    def knows(self, token: str) -> bool:
        """Whether the vocabulary has `token`, written like this, as one token."""
        return self._tokenizer.token_to_id(token) is not None

    def token(self, token_id: int) -> str | None:
        """A token as the vocabulary writes it; None for an id that pads the vocabulary."""
        return self._tokenizer.id_to_token(token_id)

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of the tokens, control tokens left out."""
        with self._lock, _translated("cannot decode these tokens"):
            return self._tokenizer.decode(token_ids, skip_special_tokens=True)

    def encode_prompt(self, rendered: str, literals: Mapping[str, str] | None = None) -> list[int]:
        """Token ids of a rendered chat, whose control tokens are recognised.

        literals: characters that stand in `rendered` for strings which would be control tokens;
        each becomes its string's ordinary tokens.
        Adds what the post-processor adds if the bundle says so and bos is not written already.
        Raises InputError where the vocabulary has no ordinary tokens for such a string.
        """
        has_bos = self._bos is not None and rendered.startswith(self._bos)
        return self._encode(rendered, literals or {}, self._add_special_tokens and not has_bos)

    def encode_text(self, text: str, literals: Mapping[str, str] | None = None) -> list[int]:
        """Token ids of a bare prompt for a base model, with what the post-processor adds."""
        return self._encode(text, literals or {}, add_special_tokens=True)

    def encode_within(self, text: str) -> list[int]:
        """Token ids of an ordinary text that goes on behind another."""
        with self._lock, _translated("cannot encode this text"):
            return self._encode_plain(text, continues=True)

    def _encode(
        self, text: str, literals: Mapping[str, str], add_special_tokens: bool
    ) -> list[int]:
        with self._lock, _translated("cannot encode this text"):
            if not any(character in text for character in literals):
                return self._ids(text, add_special_tokens)
            token_ids = self._encode_around(text, literals)
            if not add_special_tokens:
                return token_ids
            before, after = self._post_processor_ids()
            return [*before, *token_ids, *after]

    def _encode_around(self, text: str, literals: Mapping[str, str]) -> list[int]:
        """Ids of a text with stand-ins: only the stretches that hold one are encoded anew.

        A stretch is what lies between two control tokens, so its encoding depends on nothing
        outside it:

            <|user|> a stretch with a stand-in <|end|>  \\n  <|assistant|>
            control  ^---- encoded anew -----^ control ^kept control
        """
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        token_ids: list[int] = []
        kept: list[int] = []
        begin = 0
        for number, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            control = self._control.get(number)
            if control is None or control.content not in text[start:end]:
                kept.append(number)
                continue
            # Offsets may leave out the white space that such a token swallows.
            if control.lstrip:
                start = len(text[:start].rstrip())
            if control.rstrip:
                end = len(text) - len(text[end:].lstrip())
            token_ids += self._encode_stretch(text[begin:start], kept, literals, begin == 0)
            token_ids.append(number)
            begin, kept = end, []
        return token_ids + self._encode_stretch(text[begin:], kept, literals, begin == 0)

    def _encode_stretch(
        self, stretch: str, kept: list[int], literals: Mapping[str, str], is_first: bool
    ) -> list[int]:
        """Ids of a stretch: `kept`, or new ones where it holds a stand-in."""
        stand_ins = re.compile("|".join(map(re.escape, literals)))
        if not stand_ins.search(stretch):
            return kept
        continues = self._first_piece_differs and not is_first
        plain = stand_ins.sub(lambda match: literals[match.group()], stretch)
        token_ids = self._encode_plain(plain, continues)
        forbidden = self._forbidden(literals)
        if forbidden.isdisjoint(token_ids):
            return token_ids
        # The string is a word of the model itself, as in WordLevel and Unigram vocabularies:
        # cut it after its first character.
        cut = stand_ins.sub(_around_the_cut(literals), stretch)
        first, *others = stand_ins.split(cut)
        token_ids = self._encode_plain(first, continues)
        for piece in others:
            token_ids += self._encode_plain(piece, continues=True)
        if forbidden.isdisjoint(token_ids):
            return token_ids
        raise InputError(
            "the prompt contains "
            + " or ".join(repr(text) for text in literals.values() if text)
            + ", which this tokenizer knows only as a control token; remove it"
        )

    def _encode_plain(self, piece: str, continues: bool) -> list[int]:
        """Ids of a piece of text in which control tokens are ordinary characters.

        continues: the piece follows other text. SentencePiece would put a space before it, so it
        is encoded behind a newline, which is taken off again (transformers does the same).
        """
        self._tokenizer.encode_special_tokens = True
        try:
            newline = self._ids("\n") if continues else []
            token_ids = self._ids("\n" + piece) if continues else []
            if newline and token_ids[: len(newline)] == newline:
                return token_ids[len(newline) :]
            return self._ids(piece)
        finally:
            self._tokenizer.encode_special_tokens = False

    def _ids(self, text: str, add_special_tokens: bool = False) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids

    def _forbidden(self, literals: Mapping[str, str]) -> set[int]:
        """Ids that user text must never become; unknown words do become the unknown token."""
        named = (self._tokenizer.token_to_id(text) for text in literals.values() if text)
        return {*self._control, *(number for number in named if number is not None)} - {
            self._unk_id
        }

    def _post_processor_ids(self) -> tuple[list[int], list[int]]:
        """What the post-processor puts before and after a text."""
        plain, framed = self._ids("a"), self._ids("a", add_special_tokens=True)
        before = next(
            start for start in range(len(framed) + 1) if framed[start : start + len(plain)] == plain
        )
        return framed[:before], framed[before + len(plain) :]

    def _treats_first_piece_apart(self) -> bool:
        """Whether text after a control token is encoded unlike the same text at the beginning."""
        for number, token in self._control.items():
            return self._ids(token.content + "a") != [number, *self._ids("a")]
        return False


def _around_the_cut(literals: Mapping[str, str]) -> Callable[[re.Match[str]], str]:
    """A replacement that leaves each stand-in inside its string, behind the first character."""

    def replacement(match: re.Match[str]) -> str:
        text = literals[match.group()]
        return text[:1] + match.group() + text[1:]

    return replacement


def _translated(what: str) -> AbstractContextManager[None]:
    """Inside, whatever the library raises over a file that it had read is a BundleError."""
    return translated(BundleError, f"tokenizer.json {what}", "export the bundle again")


def _read(path: Path) -> tokenizers.Tokenizer:
    if not path.is_file():
        raise BundleError(f"{path} is missing; export the bundle again")
    with translated(BundleError, f"{path} is no tokenizer", "export the bundle again"):
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    # Files saved after training may carry both; a prompt is never cut or filled in silence.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
