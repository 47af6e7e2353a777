"""One request from its arguments to its answer: the ten steps of docs/architecture.md, in order.

Steps 1 to 3 and the preparing of pixels run where the request is made, the others on the device's
thread.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tightrope.arrays import Floats
from tightrope.inputs.layout import ImageTokens, Stream, assemble
from tightrope.runtime.answer import Answer, Piece, Sample, Timings, Usage
from tightrope.runtime.cancel import Cancel, Cancelled
from tightrope.runtime.controls import (
    cancelled,
    end_tokens,
    most_tokens,
    slots_full,
    stop_strings,
    thinking_cap,
)
from tightrope.runtime.conversation import Conversation, Key
from tightrope.runtime.demand import demand_of
from tightrope.runtime.generation import Choose, Generation, Row, Start
from tightrope.runtime.guard import Guard
from tightrope.runtime.images import check_list
from tightrope.runtime.loaded import Loaded
from tightrope.runtime.options import ImageSource, Options, Prompt
from tightrope.runtime.planned import Planned
from tightrope.runtime.sampling import Sampler
from tightrope.runtime.settings import Settings, resolve
from tightrope.runtime.slots import Slots
from tightrope.runtime.stopwatch import Stopwatch
from tightrope.runtime.thought import Thought
from tightrope.runtime.vision import Prepared, load_images


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """What prefill left behind."""

    logits: Floats
    prompt_tokens: int
    cached_tokens: int
    visual_tokens: int
    visual_tokens_kept: int


class Request:
    """Work for an engine: made with the arguments of a request, it yields the answer's pieces."""

    def __init__(
        self,
        loaded: Loaded,
        prompt: Prompt,
        images: Sequence[ImageSource],
        options: Options,
        conversation: Conversation | None = None,
        choose: Choose | None = None,
    ) -> None:
        """choose: picks tokens instead of what `options` say.

        Raises InputError for what cannot be answered, before anything runs.
        """
        check_list(images)
        self.cancel = Cancel()
        self._loaded, self._options, self._watch = loaded, options, Stopwatch(loaded.clock)
        self._prompt, self._conversation = prompt, conversation or Conversation(loaded)
        sampler = Sampler(options.temperature, options.top_p, options.seed, options.n)
        self._choose = choose or sampler
        self._planned: Planned | None = None
        self._guard: Guard | None = None
        self._projected_ms = 0.0
        """To the first token, of a prefill that was given up."""
        if options.budget is not None:
            self._planned = Planned(loaded, prompt, images, options, self._watch)
        self._settle()
        with self._watch("image_ms"), self._watch("image_decode_ms"):
            self._images = load_images(images)
        self._write()
        if self._planned is not None:
            self._planned.submit()

    def run(self) -> Iterator[Piece]:
        try:
            if self._planned is not None:
                self._begin(self._planned)
            yield from self._run()
        finally:
            if self._planned is not None:
                self._planned.leave()

    def _begin(self, planned: Planned) -> None:
        """Look at the clock once more: the request may have waited longer than was expected."""
        if planned.start():
            self._settle()
            self._write()
        self._guard = planned.guard()
        self._give_up_if_hopeless(planned.needed_s())

    def _settle(self) -> None:
        """What the request spends."""
        point = self._options.point if self._planned is None else self._planned.chosen.plan.point
        self._settings = resolve(point, self._loaded.manifest, self._loaded.baselines)

    def _write(self) -> None:
        """The prompt, in which the point may say whether to think, and what the tower reads."""
        cap = self._settings.point.thinking_tokens
        self._token_ids = self._loaded.language.token_ids(
            self._prompt, len(self._images), self._options.thinking, cap
        )
        self._rows = [self._row() for _ in range(self._options.n)]
        self._keys = self._remembered_as()
        self._prepared = self._prepare()

    def _give_up_if_hopeless(self, needed_s: float) -> None:
        """End with the deadline where what is left of the prefill cannot be done in time."""
        if self._guard is not None and self._guard.hopeless(needed_s):
            self._projected_ms = self._watch.elapsed_ms() + 1e3 * needed_s
            self.cancel.ask("deadline")

    def _run(self) -> Iterator[Piece]:
        conversation, rows = self._conversation, self._rows
        notes: tuple[str, ...] = ()
        try:
            resumed = conversation.resume(self._keys, self._settings)
            notes = () if resumed.note is None else (resumed.note,)
            read = self._read(resumed.known, resumed.settings)
        except Cancelled:
            conversation.reset()
            for row in rows:
                row.end(self.cancel.reason or "cancelled")
            if self._projected_ms:  # or a machine that became slow would never be known as such
                late = self._projected_ms
                self._learn(Timings(ttft_ms=late, total_ms=late), 1)
            read = _Read(
                logits=None,  # type: ignore[arg-type]  # nobody goes on from it
                prompt_tokens=len(self._token_ids),
                cached_tokens=0,
                visual_tokens=0,
                visual_tokens_kept=0,
            )
            yield Piece("", self._answer(conversation.slots, read, notes))
            return
        except BaseException:
            conversation.reset()  # half a prompt is no conversation
            raise
        slots = conversation.slots if len(rows) == 1 else conversation.slots.fork(len(rows))
        pieces = self._generation(slots, read.logits, resumed.settings).run()
        try:
            for count, piece in enumerate(pieces):
                if count == 0:
                    self._watch.first_token()
                if piece:
                    yield Piece(piece)
        finally:
            if len(rows) == 1:  # forks write to slots of their own
                conversation.record(rows[0].read)
        yield Piece("", self._answer(slots, read, notes))

    def _row(self) -> Row:
        language, options = self._loaded.language, self._options
        marks = language.thought
        opened = marks is not None and marks.opened(self._token_ids)
        row = Row(language.decoder(options.stop, options.ignore_eos), Thought(marks, opened))
        if marks is not None and opened and self._settings.point.thinking_tokens == 0:
            row.forced.extend(marks.close)  # before the first token there is nothing to control
        return row

    def _remembered_as(self) -> list[Key]:
        """The prompt's tokens as a conversation knows them."""
        images, placeholder = iter(self._images), self._loaded.language.placeholder
        if not self._images:
            return list(self._token_ids)
        how = (self._settings.resolution, *self._settings.links)
        return [
            (next(images).digest, *how) if token == placeholder else token
            for token in self._token_ids
        ]

    def _prepare(self) -> Prepared | None:
        """The tower's inputs of images that neither it nor the conversation has seen."""
        vision, resolution = self._loaded.vision, self._settings.resolution
        if vision is None or resolution is None:
            return None
        known = {key[0] for key in self._conversation.keys if isinstance(key, tuple)}
        new = [image for image in self._images if image.digest not in known]
        with self._watch("image_ms"), self._watch("preprocess_ms"):
            return vision.prepare(new, resolution)

    def _read(self, known: int, settings: Settings) -> _Read:
        """Read what the slots do not hold yet."""
        if self.cancel.reason is not None:
            raise Cancelled
        conversation = self._conversation
        cached = conversation.next_ordinal
        ids = self._token_ids[known:]
        earlier = sum(isinstance(key, tuple) for key in conversation.keys)
        self._check_fits(len(ids), len(self._images) - earlier, settings)
        images = self._see(earlier, ids, settings)
        stream = self._assemble(ids, images, cached)
        inside = sum(settings.kept("inside", image.available, len(image.index)) for image in images)
        with self._watch("prefill_ms"):
            begun, read = self._watch.elapsed_ms() if self._guard else 0.0, 0
            for chunk in conversation.read(stream, inside, settings, self.cancel):
                logits, read = chunk, read + self._loaded.manifest.prefill_chunk
                if self._guard is not None:
                    left = max(0, len(stream.ordinals) - read) / read
                    self._give_up_if_hopeless((self._watch.elapsed_ms() - begun) * left / 1e3)
                if self.cancel.reason is not None:
                    raise Cancelled
        conversation.keys = self._keys
        return _Read(
            logits=logits,
            prompt_tokens=conversation.next_ordinal,
            cached_tokens=cached,
            visual_tokens=sum(image.available for image in images),
            visual_tokens_kept=min(inside, len(stream.visual)),
        )

    def _check_fits(self, num_ids: int, num_images: int, settings: Settings) -> None:
        """Raises InputError before the tower runs where the slots cannot hold the prompt."""
        demand = demand_of(self._loaded, num_ids, num_images, settings)
        self._conversation.check_fits(demand.length, demand.visual, demand.inside, settings)

    def _see(self, earlier: int, ids: list[int], settings: Settings) -> list[ImageTokens]:
        """The visual tokens that the new images bring."""
        vision, images = self._loaded.vision, self._images[earlier:]
        if vision is None or settings.resolution is None or not images:
            return []

        def text_embeds() -> Floats:
            placeholder = self._loaded.language.placeholder
            return self._loaded.embeddings([token for token in ids if token != placeholder])

        tokens = vision.see(images, self._prepared, settings.resolution, self._watch)
        selecting = settings.link("tower") is not None
        with self._watch("select_ms") if selecting else contextlib.nullcontext():
            return vision.select(tokens, settings, text_embeds, self._options.seed)

    def _assemble(self, ids: list[int], images: list[ImageTokens], start: int) -> Stream:
        language = self._loaded.language
        return assemble(ids, language.placeholder, images, self._loaded.embeddings, start)

    def _generation(self, slots: Slots, logits: Floats, settings: Settings) -> Generation:
        options, conversation = self._options, self._conversation
        controls = [
            stop_strings(),
            most_tokens(options.max_tokens),
            cancelled(self.cancel),
            slots_full(),
        ]
        marks, cap = self._loaded.language.thought, settings.point.thinking_tokens
        if not options.ignore_eos:
            controls.insert(0, end_tokens(self._loaded.language.ends))
        # Behind those that end: what is forced needs a slot.
        if marks is not None and cap is not None:
            controls.append(thinking_cap(cap, marks.close))
        if self._guard is not None:
            controls.append(self._guard)
        return Generation(
            self._loaded.backend,
            slots,
            Start(
                logits=logits,
                ordinal=conversation.next_ordinal,
                rope_delta=conversation.rope_delta,
            ),
            self._rows,
            self._choose,
            self._loaded.embeddings,
            controls,
            settings,
        )

    def _learn(self, timings: Timings, completion_tokens: int) -> None:
        """Tell the planner what it took."""
        new = () if self._prepared is None else self._prepared.digests
        if self._planned is not None:
            self._planned.finish(
                self._settings,
                timings,
                len(self._token_ids),
                [image.digest in new for image in self._images],
                completion_tokens,
            )

    def _answer(self, slots: Slots, read: _Read, notes: tuple[str, ...]) -> Answer:
        samples = tuple(
            Sample(
                text=row.text,
                token_ids=tuple(row.token_ids),
                finish_reason=row.finish_reason or "cancelled",
                stop=row.stop,
            )
            for row in self._rows
        )
        timings, planned = self._watch.timings(), self._planned
        if read.logits is not None:
            self._learn(timings, len(self._rows[0].token_ids))
        return Answer(
            text=samples[0].text,
            token_ids=samples[0].token_ids,
            finish_reason=samples[0].finish_reason,
            stop=samples[0].stop,
            usage=Usage(
                prompt_tokens=read.prompt_tokens,
                cached_tokens=read.cached_tokens,
                visual_tokens=read.visual_tokens,
                visual_tokens_kept=read.visual_tokens_kept,
                completion_tokens=sum(len(sample.token_ids) for sample in samples),
                thinking_tokens=sum(row.thought.tokens for row in self._rows),
                injected_tokens=sum(row.injected for row in self._rows),
                occupied_slots=int(slots.occupied.max()),
                slot_bytes=slots.nbytes,
            ),
            timings=timings,
            point=self._settings.point,
            backend=self._loaded.backend.name,
            plan=None if planned is None else planned.chosen.plan,
            deadline_met=None if planned is None else planned.met(timings, samples),
            samples=samples if len(samples) > 1 else None,
            notes=notes,
        )
