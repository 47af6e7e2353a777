"""A conversation over several turns on one set of slots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tightrope.budget import Budget
from tightrope.checks import shown
from tightrope.configs import default_of
from tightrope.errors import InputError
from tightrope.point import OperatingPoint
from tightrope.runtime.answer import Answer
from tightrope.runtime.conversation import Conversation
from tightrope.runtime.frames import place_frames
from tightrope.runtime.images import check_list
from tightrope.runtime.loaded import Loaded
from tightrope.runtime.options import Frames, ImageSource, Options
from tightrope.runtime.request import Request
from tightrope.runtime.stream import Stream
from tightrope.runtime.warm_up import get_ready


class Chat:
    """Turns that build on each other.

    A turn reads only its own tokens if the template writes the earlier ones as before and the same
    policy scores them; otherwise the conversation is read again from its start, and the answer's
    notes say so. A turn with a budget is planned by what its slots hold: a point that reads images
    another way, or scores by another policy, costs it all of what was said before.
    """

    def __init__(self, loaded: Loaded, system: str | None) -> None:
        """Raises InputError for a bundle without a chat template."""
        if not loaded.language.chats:
            raise InputError("this bundle has no chat template: it continues text, use generate")
        self._loaded = loaded
        self._conversation = Conversation(loaded)
        self.messages: list[dict[str, Any]] = []
        """What was said so far; images and frames stand in it as {"type": "image"} parts."""
        self._images: list[ImageSource] = []
        if system is not None:
            self.messages.append({"role": "system", "content": system})

    def ask(
        self,
        text: str,
        images: Sequence[ImageSource] = (),
        *,
        frames: Frames = (),
        max_tokens: int = default_of(Options, "max_tokens"),
        temperature: float = default_of(Options, "temperature"),
        top_p: float = default_of(Options, "top_p"),
        top_k: int = default_of(Options, "top_k"),
        min_p: float = default_of(Options, "min_p"),
        repetition_penalty: float = default_of(Options, "repetition_penalty"),
        presence_penalty: float = default_of(Options, "presence_penalty"),
        frequency_penalty: float = default_of(Options, "frequency_penalty"),
        logit_bias: Mapping[int, float] | None = None,
        logprobs: int | None = None,
        seed: int = default_of(Options, "seed"),
        stop: Sequence[str] | None = None,
        thinking: bool | None = None,
        budget: Budget | None = None,
        point: OperatingPoint | None = None,
        ignore_eos: bool = False,
    ) -> Answer:
        """The answer to the next turn; arguments as for `Model.generate`."""
        options = Options(
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            presence_penalty=presence_penalty,
            frequency_penalty=frequency_penalty,
            logit_bias=logit_bias,
            logprobs=logprobs,
            seed=seed,
            stop=stop,
            thinking=thinking,
            budget=budget,
            point=point,
            ignore_eos=ignore_eos,
        )
        return self._turn(text, images, frames, options).answer()

    def stream(
        self,
        text: str,
        images: Sequence[ImageSource] = (),
        *,
        frames: Frames = (),
        max_tokens: int = default_of(Options, "max_tokens"),
        temperature: float = default_of(Options, "temperature"),
        top_p: float = default_of(Options, "top_p"),
        top_k: int = default_of(Options, "top_k"),
        min_p: float = default_of(Options, "min_p"),
        repetition_penalty: float = default_of(Options, "repetition_penalty"),
        presence_penalty: float = default_of(Options, "presence_penalty"),
        frequency_penalty: float = default_of(Options, "frequency_penalty"),
        logit_bias: Mapping[int, float] | None = None,
        logprobs: int | None = None,
        seed: int = default_of(Options, "seed"),
        stop: Sequence[str] | None = None,
        thinking: bool | None = None,
        budget: Budget | None = None,
        point: OperatingPoint | None = None,
        ignore_eos: bool = False,
    ) -> Stream:
        """The same as it grows; a turn counts once its last piece was taken."""
        options = Options(
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            presence_penalty=presence_penalty,
            frequency_penalty=frequency_penalty,
            logit_bias=logit_bias,
            logprobs=logprobs,
            seed=seed,
            stop=stop,
            thinking=thinking,
            budget=budget,
            point=point,
            ignore_eos=ignore_eos,
        )
        return self._turn(text, images, frames, options)

    def _turn(
        self, text: str, images: Sequence[ImageSource], frames: Frames, options: Options
    ) -> Stream:
        check_list(images)
        if not isinstance(text, str) or not (text or images or frames):
            raise InputError(f"text is {shown(text)}; accepted: what the user says next")
        parts = [{"type": "image"}] * len(images) + [{"type": "text", "text": text}]
        content: Any = parts if images else text
        vision = self._loaded.manifest.vision
        turn = [{"role": "user", "content": content}]
        said, shown_now = place_frames(turn, images, frames, vision)
        messages = [*self.messages, *said]
        seen = [*self._images, *shown_now]

        def count(answer: Answer) -> None:
            self._images = seen
            self.messages = [*messages, {"role": "assistant", "content": answer.text}]

        get_ready(self._loaded, options)
        request = Request(self._loaded, messages, seen, options, self._conversation)
        return Stream(self._loaded.engine, request, count)
