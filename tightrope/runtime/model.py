"""A loaded bundle that answers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tightrope.budget import OperatingPoint
from tightrope.bundle import Bundle
from tightrope.checks import check_type, check_whole
from tightrope.errors import BundleError, InputError
from tightrope.inputs.layout import ImageTokens, assemble, visual_tokens
from tightrope.inputs.positions import find_rule
from tightrope.runtime.answer import Answer, Piece, Sample, Usage
from tightrope.runtime.backends import create_backend
from tightrope.runtime.backends.backend import Backend, Cancel, Cancelled
from tightrope.runtime.chat import Chat
from tightrope.runtime.conversation import Conversation, Key
from tightrope.runtime.detokenizer import StreamDecoder
from tightrope.runtime.embeddings import Embeddings
from tightrope.runtime.generation import Decoding, Row, decode
from tightrope.runtime.images import ImageSource
from tightrope.runtime.prompt import render_and_encode
from tightrope.runtime.sampling import Sampler
from tightrope.runtime.settings import Settings, resolve
from tightrope.runtime.stopwatch import Stopwatch
from tightrope.runtime.template import ChatTemplate
from tightrope.runtime.tokenizer import Tokenizer
from tightrope.runtime.vision import LoadedImage, Vision, load_images

Prompt = str | Sequence[int] | Sequence[Mapping[str, Any]]

DEFAULT_MAX_TOKENS = 256
THINKING = "enable_thinking"
"""The variable by which chat templates are told whether the model thinks before it answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How one request is answered."""

    max_tokens: int = DEFAULT_MAX_TOKENS
    temperature: float = 0.0
    top_p: float = 1.0
    n: int = 1
    seed: int = 0
    stop: Sequence[str] | None = None
    point: OperatingPoint | None = None
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        check_whole("max_tokens", self.max_tokens, least=1)
        check_type("ignore_eos", self.ignore_eos, bool, "True or False")


def load(path: str | os.PathLike[str], backend: str = "auto", threads: int | None = None) -> Model:
    """The bundle in folder `path`, ready to answer.

    backend: auto, onnxruntime, onnxruntime-cuda or tensorrt; `Answer.backend` says which ran.
    threads: of the CPU; None lets the backend choose.
    Raises BundleError, BackendError and DeviceUnavailable; nothing falls back in silence.
    """
    bundle = Bundle.open(path)
    return Model(bundle, create_backend(backend, bundle, threads))


class Model:
    """A bundle on a backend. Requests may come from several threads."""

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        self.bundle, self.backend = bundle, backend
        generation = bundle.read_json("generation.json")
        _check_generation(generation)
        special = generation["special_tokens"]
        self._ends = frozenset(generation["eos_token_ids"])
        self._embeddings = Embeddings(bundle, generation["embedding_scale"])
        self._tokenizer = Tokenizer(
            bundle.file("tokenizer.json"), special, generation["add_special_tokens"]
        )
        self._template: ChatTemplate | None = None
        self._template_thinks = False
        if "chat_template.jinja" in bundle.manifest.files:
            source = bundle.file("chat_template.jinja").read_text(encoding="utf-8")
            self._template = ChatTemplate(source, special)
            self._template_thinks = THINKING in source
        find_rule(bundle.manifest.positions)
        self._vision = bundle.manifest.vision
        self.vision: Vision | None = None
        if (tower := bundle.manifest.tower) is not None:
            config = bundle.read_json("preprocessor.json")
            prepare = tower.prepare(config, bundle.read_arrays("positions.npz"))
            self.vision = Vision(backend, tower, prepare)

    def generate(
        self,
        prompt: Prompt,
        images: Sequence[ImageSource] = (),
        *,
        max_tokens: int = DEFAULT_MAX_TOKENS,
        temperature: float = 0.0,
        top_p: float = 1.0,
        n: int = 1,
        seed: int = 0,
        stop: Sequence[str] | None = None,
        point: OperatingPoint | None = None,
        ignore_eos: bool = False,
    ) -> Answer:
        """The answer to `prompt`.

        prompt: a question (the chat template is applied), token ids (taken as they are), or
        messages {"role", "content"}.
        images: paths, encoded bytes, PIL images or uint8 [H,W,3]; they stand where the
        placeholder stands, else first.
        temperature 0 is greedy. n: answers to one prefill, each from its own random stream.
        stop: strings that end the answer and are not part of it. point: what may be spent.
        Raises InputError for what cannot be answered, before anything runs.
        """
        options = Options(
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            n=n,
            seed=seed,
            stop=stop,
            point=point,
            ignore_eos=ignore_eos,
        )
        answer: Answer | None = None
        for piece in Stream(self, prompt, images, options, None):
            answer = piece.answer
        assert answer is not None, "the last piece carries the answer"
        return answer

    def stream(
        self,
        prompt: Prompt,
        images: Sequence[ImageSource] = (),
        *,
        max_tokens: int = DEFAULT_MAX_TOKENS,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        stop: Sequence[str] | None = None,
        point: OperatingPoint | None = None,
        ignore_eos: bool = False,
    ) -> Stream:
        """The answer as it grows: an iterator of pieces, whose last one carries the answer.

        Arguments as for `generate`. Pieces are whole characters; joined they are `answer.text`.
        """
        options = Options(
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
            stop=stop,
            point=point,
            ignore_eos=ignore_eos,
        )
        return Stream(self, prompt, images, options, None)

    def chat(self, system: str | None = None) -> Chat:
        """A conversation that keeps its slots between turns."""
        if self._template is None:
            raise InputError("this bundle has no chat template: it continues text, use generate")
        return Chat(self, system)

    def token_ids(
        self, prompt: Prompt, num_images: int = 0, thinking: bool | None = None
    ) -> list[int]:
        """Token ids of `prompt`, one placeholder per image.

        thinking: whether the model thinks before it answers; None leaves it to the chat template.
        Raises InputError for a choice that the template does not offer.
        """
        if not isinstance(prompt, Sequence) or isinstance(prompt, bytes):
            raise InputError(
                f"prompt is {prompt!r}; accepted: a question, a list of token ids, or a list of "
                "messages"
            )
        if not prompt and (num_images == 0 or not isinstance(prompt, str)):
            raise InputError(f"prompt is {prompt!r}, which is empty; give a question")
        if self._vision is None and num_images:
            raise InputError(f"{num_images} images were given, but the bundle sees none")
        if thinking is not None and not self._template_thinks:
            raise InputError(
                f"thinking is {thinking}, but this bundle's chat template does not mention "
                f"{THINKING}: leave it out"
            )
        if prompt and isinstance(prompt[0], (int, np.integer)):
            return self._given_ids(prompt, num_images)
        token = None if self._vision is None else self._vision.image_token
        messages: Any = prompt
        told = {} if thinking is None else {THINKING: thinking}
        ids = render_and_encode(
            self._template, self._tokenizer, messages, token, num_images, **told
        )
        if not ids:
            raise InputError("the prompt is empty; give a question")
        vocab = self.bundle.manifest.dims.vocab_size
        if max(ids) >= vocab:
            raise BundleError(
                f"tokenizer.json gives token id {max(ids)}, the model knows {vocab}: the two do "
                "not belong together; export the checkpoint again with its own tokenizer"
            )
        return ids

    def _given_ids(self, prompt: Sequence[Any], num_images: int) -> list[int]:
        for token in prompt:
            if isinstance(token, bool) or not isinstance(token, (int, np.integer)):
                raise InputError(f"the prompt has {token!r} among token ids; accepted: ids alone")
        ids = [int(token) for token in prompt]
        vocab = self.bundle.manifest.dims.vocab_size
        if bad := [token for token in ids if not 0 <= token < vocab]:
            raise InputError(f"token id {bad[0]} is outside the vocabulary of {vocab}")
        places = 0 if self._vision is None else ids.count(self._vision.image_token_id)
        if num_images and places != num_images:
            raise InputError(f"{num_images} images were given for {places} placeholders")
        return ids


_GENERATION = {
    "eos_token_ids": list,
    "add_special_tokens": bool,
    "special_tokens": dict,
    "embedding_scale": float,
}


def _check_generation(generation: Mapping[str, Any]) -> None:
    for name, kind in _GENERATION.items():
        if not isinstance(generation.get(name), kind):
            raise BundleError(
                f"generation.json has {name} {generation.get(name)!r}; accepted: a "
                f"{kind.__name__}; export the bundle again"
            )


class Stream:
    """One running request: iterate it for pieces; `cancel` ends it from anywhere."""

    def __init__(
        self,
        model: Model,
        prompt: Prompt,
        images: Sequence[ImageSource],
        options: Options,
        conversation: Conversation | None,
    ) -> None:
        self._cancel = Cancel()
        request = _Request(model, prompt, images, options, conversation, self._cancel)
        self._pieces = request.run()

    def __iter__(self) -> Iterator[Piece]:
        return self._pieces

    def __next__(self) -> Piece:
        return next(self._pieces)

    def cancel(self) -> None:
        """Stop: a running prefill is broken off, decoding ends within one token.

        The last piece still comes, its answer's finish_reason is "cancelled".
        """
        self._cancel.ask()


class _Request:
    """One request from its arguments to its answer."""

    def __init__(
        self,
        model: Model,
        prompt: Prompt,
        images: Sequence[ImageSource],
        options: Options,
        conversation: Conversation | None,
        cancel: Cancel,
    ) -> None:
        self._model, self._options, self._cancel = model, options, cancel
        self._watch = Stopwatch()
        manifest = model.bundle.manifest
        self._settings: Settings = resolve(options.point, manifest)
        self._conversation = conversation or Conversation(model.backend, manifest)
        self._sampler = Sampler(options.temperature, options.top_p, options.seed, options.n)
        tokenizer, stop = model._tokenizer, () if options.stop is None else options.stop
        self._rows = [Row(StreamDecoder(tokenizer, stop)) for _ in range(options.n)]
        self._images = load_images(images, self._watch)
        self._token_ids = model.token_ids(prompt, len(images))
        self._notes: list[str] = []
        self._prompt_tokens = len(self._token_ids)
        self._cached = 0
        self._kept = self._visual = 0

    def run(self) -> Iterator[Piece]:
        try:
            logits = self._prefill()
        except Cancelled:
            self._conversation.reset()
            for row in self._rows:
                row.end("cancelled")
            yield Piece("", self._answer(self._conversation.slots))
            return
        except BaseException:
            self._conversation.reset()  # half a prompt is no conversation
            raise
        slots = self._conversation.slots
        if self._options.n > 1:
            slots = slots.fork(self._options.n)
        decoding = Decoding(
            sampler=self._sampler,
            max_tokens=self._options.max_tokens,
            end_ids=frozenset() if self._options.ignore_eos else self._model._ends,
        )
        pieces = decode(
            self._model.backend,
            slots,
            logits,
            self._conversation.next_ordinal,
            self._rows,
            decoding,
            self._settings,
            self._model._embeddings,
            self._cancel,
        )
        try:
            for count, piece in enumerate(pieces):
                if count == 0:
                    self._watch.first_token()
                if piece:
                    yield Piece(piece)
        finally:
            self._record()
        yield Piece("", self._answer(slots))

    def _prefill(self) -> Any:
        """Read what the slots do not hold yet; logits [1,vocab] after the prompt."""
        conversation, settings = self._conversation, self._settings
        keys = self._keys()
        known = len(conversation.keys)
        if keys[:known] != conversation.keys or len(keys) == known:
            conversation.reset()
            self._notes.append(
                "the conversation was read again from its start: its earlier turns are not "
                "written the way the slots hold them"
            )
            known = 0
        self._cached = conversation.next_ordinal
        ids = self._token_ids[known:]
        vision = self._model._vision
        image_id = None if vision is None else vision.image_token_id
        earlier = sum(isinstance(key, tuple) for key in conversation.keys)
        self._check_fits(len(ids), len(self._images) - earlier)
        images = self._see(self._images[earlier:], ids, image_id)
        stream = assemble(ids, image_id, images, self._model._embeddings, conversation.next_ordinal)
        inside = sum(settings.kept("inside", image.available, len(image.index)) for image in images)
        self._visual = sum(image.available for image in images)
        self._kept = min(inside, len(stream.visual))
        with self._watch("prefill_ms"):
            logits = conversation.read(stream, inside, settings, self._cancel)
        self._prompt_tokens = conversation.next_ordinal
        conversation.keys = keys
        return logits

    def _check_fits(self, num_ids: int, num_images: int) -> None:
        """Raises InputError before the tower runs where the slots cannot hold the prompt."""
        vision, settings = self._model.vision, self._settings
        if vision is None or settings.resolution is None:
            self._conversation.check_fits(num_ids, 0, 0, settings)
            return
        layout = vision.tower.layout(settings.resolution)
        available = visual_tokens(layout)
        separators = sum(map(len, layout)) - available
        kept = settings.kept("tower", available, available)
        visual = num_images * kept
        inside = num_images * settings.kept("inside", available, kept)
        length = num_ids - num_images + visual + num_images * separators
        self._conversation.check_fits(length, visual, inside, settings)

    def _see(
        self, images: Sequence[LoadedImage], ids: Sequence[int], image_id: int | None
    ) -> list[ImageTokens]:
        vision = self._model.vision
        if vision is None or not images:
            return []

        def text_embeds() -> Any:
            return self._model._embeddings([token for token in ids if token != image_id])

        return vision.tokens_of(
            images, self._settings, text_embeds, self._options.seed, self._watch
        )

    def _keys(self) -> list[Key]:
        """The prompt's tokens as the conversation remembers them."""
        if not self._images:
            return list(self._token_ids)
        settings, images = self._settings, iter(self._images)
        image_id = self._model._vision.image_token_id if self._model._vision else None
        how = (settings.resolution, *settings.links)
        return [
            (next(images).digest, *how) if token == image_id else token for token in self._token_ids
        ]

    def _record(self) -> None:
        """The conversation holds the first row's tokens, its last one excepted."""
        if self._options.n > 1:
            return  # the forks wrote to their own slots
        fed = self._rows[0].token_ids[:-1]
        self._conversation.keys += fed
        self._conversation.next_ordinal += len(fed)

    def _answer(self, slots: Any) -> Answer:
        first, rows = self._rows[0], self._rows
        usage = Usage(
            prompt_tokens=self._prompt_tokens,
            cached_tokens=self._cached,
            visual_tokens=self._visual,
            visual_tokens_kept=self._kept,
            completion_tokens=sum(len(row.token_ids) for row in rows),
            occupied_slots=int(slots.occupied.max()),
            slot_bytes=slots.nbytes,
        )
        samples = tuple(
            Sample(
                text=row.text,
                token_ids=tuple(row.token_ids),
                finish_reason=row.finish_reason or "cancelled",
            )
            for row in rows
        )
        return Answer(
            text=first.text,
            token_ids=tuple(first.token_ids),
            finish_reason=first.finish_reason or "cancelled",
            usage=usage,
            timings=self._watch.timings(),
            point=self._settings.point,
            backend=self._model.backend.name,
            samples=samples if len(samples) > 1 else None,
            notes=tuple(self._notes),
        )
