"""Text and messages to token ids, and ids back to text, as one bundle does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from tightrope.bundle import Bundle
from tightrope.checks import shown
from tightrope.errors import BundleError, InputError
from tightrope.runtime.detokenizer import StreamDecoder
from tightrope.runtime.marks import Mark, marks_of
from tightrope.runtime.options import Prompt
from tightrope.runtime.prompt import (
    Messages,
    check_text,
    count_places,
    placed,
    render_and_encode,
)
from tightrope.runtime.template import ChatTemplate
from tightrope.runtime.thought import BEGIN, Marks, find_marks
from tightrope.runtime.tokenizer import Tokenizer
from tightrope.typed import typed

THINKING = "enable_thinking"
"""The variable by which chat templates are told whether the model thinks before it answers."""
TODAY = "strftime_now"
"""What templates call that write the date, which does not stay the same."""
_LARGEST_SCALE = float(np.finfo(np.float32).max)
_MOST_RENDERED = 16
"""Planning, marks and the request itself ask about the same prompt, and a few like it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """generation.json."""

    eos_token_ids: tuple[int, ...]
    add_special_tokens: bool
    special_tokens: dict[str, str]
    embedding_scale: float


@dataclass(frozen=True, slots=True)
class _Asked:
    """A prompt, known by what is written in it."""

    written: str
    num_images: int
    told: tuple[tuple[str, bool], ...]
    messages: list[dict[str, Any]] = field(compare=False)


class Language:
    """A bundle's tokenizer, chat template and end tokens."""

    def __init__(self, bundle: Bundle) -> None:
        """Raises BundleError for files that are damaged or do not belong together."""
        content = bundle.read_json("generation.json")
        with bundle.damaged("generation.json"):
            rules: Rules = typed(Rules, content, "generation.json")
            if not 0 < rules.embedding_scale <= _LARGEST_SCALE:
                raise ValueError(f"embedding_scale is {rules.embedding_scale}")
        self.embedding_scale = rules.embedding_scale
        self._vocab = bundle.manifest.dims.vocab_size
        self._vision = bundle.manifest.vision
        special = rules.special_tokens
        self._tokenizer = Tokenizer(
            bundle.file("tokenizer.json"), special, rules.add_special_tokens
        )
        with bundle.damaged("generation.json"):  # ids that no tokenizer counts to
            ends = {number: self._tokenizer.token(number) or "" for number in rules.eos_token_ids}
        self.ends = ends
        """Text of each token that ends an answer, by id."""
        self._template: ChatTemplate | None = None
        self._thinks = False
        self._dated = False
        self._rendered = lru_cache(maxsize=_MOST_RENDERED)(self._render)
        if "chat_template.jinja" in bundle.manifest.files:
            source = bundle.read_text("chat_template.jinja")
            self._template = ChatTemplate(source, special)
            self._thinks = THINKING in source
            self._dated = TODAY in source
        self.thought: Marks | None = find_marks(self._tokenizer, self._without_thought)
        """What its thoughts are known by; None for a model that has none."""

    @property
    def chats(self) -> bool:
        """Whether the bundle has a chat template."""
        return self._template is not None

    @property
    def placeholder(self) -> int | None:
        """The id that stands for an image; None for a text model."""
        return None if self._vision is None else self._vision.image_token_id

    def _told(self, asked: bool | None, tokens: int | None) -> dict[str, bool]:
        """What the template is told; raises InputError for what the bundle cannot do."""
        if tokens is not None and self.thought is None:
            raise InputError(
                f"thinking_tokens is {tokens}, but this bundle has no thoughts to limit: its "
                f"vocabulary has no {BEGIN}; leave it out"
            )
        if asked and tokens == 0:
            raise InputError("thinking is True, but thinking_tokens is 0: set one of them")
        if tokens == 0 and self._thinks:
            asked = False
        if asked is not None and not self._thinks:
            raise InputError(
                f"thinking is {asked}, but this bundle's chat template does not mention "
                f"{THINKING}: leave it out"
            )
        return {} if asked is None else {THINKING: asked}

    def _without_thought(self) -> list[int]:
        return self.token_ids("?", 0, thinking=False)

    def decoder(self, stop: Sequence[str] | None, ignore_eos: bool) -> StreamDecoder:
        """Text of one answer, piece by piece; raises InputError for stop strings that are none."""
        hidden = frozenset[int]() if ignore_eos else frozenset(self.ends)
        return StreamDecoder(self._tokenizer, () if stop is None else stop, hidden)

    def token_ids(
        self,
        prompt: Prompt,
        num_images: int,
        thinking: bool | None,
        thinking_tokens: int | None = None,
    ) -> list[int]:
        """Token ids of `prompt`, one placeholder per image.

        thinking: whether the model thinks before it answers; None leaves it to the chat template.
        thinking_tokens: its longest thought; where that is 0 the template leaves it out if it can.
        Raises InputError for what is no prompt, and for a choice that the template does not offer.
        """
        if not isinstance(prompt, Sequence) or isinstance(prompt, bytes):
            raise InputError(
                f"prompt is {shown(prompt)}; accepted: a question, a list of token ids, or a list "
                "of messages"
            )
        if not prompt and (num_images == 0 or not isinstance(prompt, str)):
            raise InputError(f"prompt is {shown(prompt)}, which is empty; give a question")
        if self._vision is None and num_images:
            raise InputError(f"{num_images} images were given, but the bundle sees none")
        told = self._told(thinking, thinking_tokens)
        if prompt and isinstance(prompt[0], (int, np.integer)):
            return self._given_ids(prompt, num_images)
        messages: Any = prompt
        ids = self._encode(messages, num_images, told)
        if not ids:
            raise InputError("the prompt is empty; give a question")
        if max(ids) >= self._vocab:
            raise BundleError(
                f"tokenizer.json gives token id {max(ids)}, the model knows {self._vocab}: the "
                "two do not belong together; export the checkpoint again with its own tokenizer"
            )
        return ids

    def token_text(self, token_id: int) -> str:
        """One token as text; a control token as it is written, part of a character as U+FFFD."""
        return self._tokenizer.decode([token_id]) or self._tokenizer.token(token_id) or ""

    def text_ids(self, text: str) -> list[int]:
        """Token ids of a text as it stands: no chat template, control tokens are recognised.

        Raises InputError for what is no text.
        """
        check_text("the prompt", text)
        return self._tokenizer.encode_text(text)

    def marks(
        self,
        prompt: Prompt,
        token_ids: Sequence[int],
        num_images: int,
        thinking: bool | None,
        thinking_tokens: int | None = None,
    ) -> tuple[Mark, ...]:
        """Where a conversation may be cut whose prompt is `token_ids`; other arguments as there."""
        if self._template is None or not isinstance(prompt[0] if prompt else None, Mapping):
            return ()
        told = self._told(thinking, thinking_tokens)
        token = None if self._vision is None else self._vision.image_token
        shown = token if num_images else None

        def encode(messages: Sequence[Mapping[str, Any]]) -> list[int]:
            return self._encode(messages, count_places(messages, shown), told)

        messages: Any = prompt
        placeholder = self.placeholder if num_images else None
        return marks_of(placed(messages, token, num_images), token_ids, placeholder, encode)

    def _encode(self, messages: Messages, num_images: int, told: dict[str, bool]) -> list[int]:
        """Token ids of a prompt; of one that was asked about a moment ago, those of then."""
        written = None if self._vision is None else self._vision.image_token
        shown = placed(messages, written, num_images)
        asked = _Asked(repr(shown), num_images, tuple(told.items()), shown)
        return list(self._render(asked) if self._dated else self._rendered(asked))

    def _render(self, asked: _Asked) -> tuple[int, ...]:
        vision, written, text = self._vision, None, ""
        if vision is not None:
            written, text = vision.image_token, vision.image_text
        ids = render_and_encode(
            self._template,
            self._tokenizer,
            asked.messages,
            written,
            asked.num_images,
            text,
            **dict(asked.told),
        )
        images = asked.num_images
        if vision is not None and images and ids.count(vision.image_token_id) != images:
            raise InputError(
                f"the prompt itself writes the token that stands for an image; write {written!r} "
                "where an image stands"
            )
        return tuple(ids)

    def _given_ids(self, prompt: Sequence[Any], num_images: int) -> list[int]:
        for token in prompt:
            if isinstance(token, bool) or not isinstance(token, (int, np.integer)):
                raise InputError(
                    f"the prompt has {shown(token)} among token ids; accepted: ids alone"
                )
        ids = [int(token) for token in prompt]
        if bad := [token for token in ids if not 0 <= token < self._vocab]:
            raise InputError(
                f"the prompt is none of this model: token id {shown(bad[0])} is outside the "
                f"vocabulary of {self._vocab}"
            )
        places = 0 if self._vision is None else ids.count(self._vision.image_token_id)
        if num_images and places != num_images:
            raise InputError(f"{num_images} images were given for {places} placeholders")
        return ids
