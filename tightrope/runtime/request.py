"""One request from its arguments to its answer: the ten steps of docs/architecture.md, in order.

Steps 1 to 3 and the preparing of pixels run where the request is made, the others on the device's
thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tightrope.arrays import Floats, Indices
from tightrope.runtime.ahead import Ahead, claim_of, look_ahead
from tightrope.runtime.answer import Answer, Piece, Timings, Usage
from tightrope.runtime.cancel import Cancel, Cancelled
from tightrope.runtime.choosing import Chooser
from tightrope.runtime.conversation import Conversation, Resumed
from tightrope.runtime.finished import Finished
from tightrope.runtime.generation import Choose, Generation, Start
from tightrope.runtime.guard import Guard
from tightrope.runtime.held import hold_images
from tightrope.runtime.likeliest import of_whole
from tightrope.runtime.loaded import Loaded
from tightrope.runtime.options import ImageSource, Options, Prompt
from tightrope.runtime.planned import Planned
from tightrope.runtime.reading import Reading
from tightrope.runtime.rows import controls_of, rows_of
from tightrope.runtime.settings import Settings, resolve
from tightrope.runtime.slots import Slots
from tightrope.runtime.spending import Spending
from tightrope.runtime.stopwatch import Stopwatch
from tightrope.runtime.written import write


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
        choose: Callable[[Floats], Indices] | None = None,
        waited_s: float = 0.0,
        trial: bool = False,
    ) -> None:
        """choose: picks tokens instead of what `options` say. trial: nobody asked for the answer.

        waited_s: since when somebody waits for the answer; its deadline counts from then.
        Raises InputError for what cannot be answered, before anything runs.
        """
        self.cancel = Cancel()
        self._loaded, self._options = loaded, options
        self._watch = Stopwatch(loaded.clock, waited_s)
        self._spending = Spending(loaded.telemetry)
        self._alone, self._trial = conversation is None and choose is None, trial
        self._prompt, self._sources = prompt, images
        self._conversation = conversation or Conversation(loaded)
        self._chooser = Chooser(options, loaded.manifest.dims.vocab_size)
        self._choose: Choose = self._chooser if choose is None else of_whole(choose)
        self._planned: Planned | None = None
        self._guard: Guard | None = None
        self._projected_ms = 0.0
        """To the first token, of a prefill that was given up."""
        self._known = 0
        """Ids of the prompt that were in the conversation's slots."""
        self._reused: frozenset[tuple[int, bytes]] | None = None
        """What of the prompt was in kept slots; None as long as nothing was read."""
        with self._watch("image_ms"), self._watch("image_decode_ms"):
            self._images = hold_images(images, loaded.detail(options.budget))
        if options.budget is not None:
            self._planned = Planned(
                loaded,
                prompt,
                images,
                self._images,
                options,
                self._conversation,
                self._watch,
                self,
            )
        self._settle()
        self._write()
        self._ahead = self._look_ahead()
        if self._planned is not None:
            claim = self._planned.claim
            self._planned.submit()
        else:
            claim = claim_of(loaded, self._ahead, options.n)
            loaded.engine.waiting.add(self, claim)
        self.due = claim.due
        """When it has to be done, in seconds of the clock: whose is earlier runs first."""
        self._submitted_ms = self._watch.elapsed_ms()

    def run(self) -> Iterator[Piece]:
        waiting = self._loaded.engine.waiting
        waiting.start(self, self._loaded.clock())
        try:
            queued_ms = self._watch.elapsed_ms() - self._submitted_ms
            self._watch.add("queue_ms", queued_ms)
            self._spending.runs(queued_ms)
            if self._planned is not None:
                self._begin(self._planned)
            for piece in self._run():
                if piece.answer is not None:  # whoever gets it may ask again at once
                    waiting.finish(self)
                yield piece
        finally:
            waiting.finish(self)

    def _begin(self, planned: Planned) -> None:
        """Look at the clock once more: the request may have waited longer than was expected."""
        if planned.start():
            self._settle()
            self._write()
            self._ahead = self._look_ahead()
        self._guard = planned.guard()
        self._give_up_if_hopeless(planned.needed_s())

    def _settle(self) -> None:
        """What the request spends."""
        point = self._options.point if self._planned is None else self._planned.chosen.plan.point
        self._settings = resolve(point, self._loaded.manifest, self._loaded.baselines)

    def _write(self) -> None:
        """The prompt as these settings have it, and the answers that it begins."""
        self._written = write(
            self._loaded,
            self._prompt,
            self._sources,
            self._images,
            self._options,
            self._settings,
            self._conversation,
            self._watch,
        )
        language, ids = self._loaded.language, self._written.token_ids
        self._rows = rows_of(language, self._options, self._settings, ids)

    def _look_ahead(self) -> Ahead | None:
        ids, images = self._written.token_ids, self._images
        headers, begun = [image.header for image in images], self._conversation.begun(ids, images)
        return look_ahead(
            self._loaded, self._written, headers, self._settings, self._options, begun
        )

    def _give_up_if_hopeless(self, needed_s: float) -> None:
        """End with the deadline where what is left of the prefill cannot be done in time."""
        if self._guard is not None and self._guard.hopeless(needed_s):
            self._projected_ms = self._watch.elapsed_ms() + 1e3 * needed_s
            self.cancel.ask("deadline")

    def _run(self) -> Iterator[Piece]:
        conversation, rows = self._conversation, self._rows
        notes: tuple[str, ...] = ()
        try:
            resumed = conversation.resume(self._written.keys, self._settings)
            self._known = resumed.known
            notes = () if resumed.note is None else (resumed.note,)
            read = self._read(resumed)
        except Cancelled:
            conversation.reset()
            for row in rows:
                row.end(self.cancel.reason or "cancelled")
            if self._projected_ms:  # or a machine that became slow would never be known as such
                late = self._projected_ms
                self._learn(Timings(ttft_ms=late, total_ms=late), 1)
            read = _Read(
                logits=None,  # type: ignore[arg-type]  # nobody goes on from it
                prompt_tokens=len(self._written.token_ids),
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
        generation = self._generation(slots, read.logits, resumed.settings)
        try:
            for count, piece in enumerate(generation.run()):
                if count == 0:
                    self._watch.first_token()
                if piece:
                    yield Piece(piece, logprobs=rows[0].fresh_logprobs())
                if not generation.done:
                    self._give_way("decode_ms")
        finally:
            if len(rows) == 1:  # forks write to slots of their own
                conversation.record(rows[0].read)
        answer = self._answer(slots, read, notes)
        yield Piece("", answer, rows[0].fresh_logprobs())
        self._tell(answer)  # the answer is handed out: nobody waits for it

    def _give_way(self, stage: str) -> float:
        """Let those run that are due before; returns the milliseconds for which they did."""
        engine = self._loaded.engine
        if not engine.is_awaited(self.due):
            return 0.0
        before = self._watch.elapsed_ms()
        with engine.waiting.paused(self, self._loaded.clock):
            engine.give_way(self.due)
        took = self._watch.elapsed_ms() - before
        self._watch.pause(stage, took)
        if self._guard is not None:
            self._guard.pause(took / 1e3)
        return took

    def _read(self, resumed: Resumed) -> _Read:
        """Read what the slots do not hold yet."""
        if self.cancel.reason is not None:
            raise Cancelled
        conversation, loaded, settings = self._conversation, self._loaded, resumed.settings
        cached = conversation.next_ordinal
        reading = Reading(
            loaded, conversation, self._images, self._options.seed, self._watch, self.cancel
        )
        unread = reading.unread(self._written, resumed)
        stream, inside = unread.stream, unread.inside
        tokens = len(stream.ordinals) + self._options.max_tokens
        loaded.make_way(conversation.slots, len(self._rows), tokens)
        with self._watch("prefill_ms"):
            self._give_way("prefill_ms")  # the tower may have taken long
            begun = self._watch.elapsed_ms() if self._guard else 0.0
            for chunk in conversation.read(stream, inside, settings, self.cancel, unread.stops):
                logits, reused = chunk, conversation.reused
                self._reused = frozenset() if reused is None else frozenset([reused.key.mark])
                if self._guard is not None:
                    left = (1 - conversation.progress) / conversation.progress
                    self._give_up_if_hopeless((self._watch.elapsed_ms() - begun) * left / 1e3)
                if conversation.progress < 1:
                    begun += self._give_way("prefill_ms")
                if self.cancel.reason is not None:
                    raise Cancelled
        conversation.keys = list(self._written.keys)
        return _Read(
            logits=logits,
            prompt_tokens=conversation.next_ordinal,
            cached_tokens=cached if reused is None else reused.cut.ordinal,
            visual_tokens=unread.visual_tokens,
            visual_tokens_kept=min(inside, len(stream.visual)),
        )

    def _generation(self, slots: Slots, logits: Floats, settings: Settings) -> Generation:
        self._chooser.watch(self._written.token_ids, [row.token_ids for row in self._rows])
        conversation, language = self._conversation, self._loaded.language
        controls = controls_of(language, self._options, settings, self.cancel, self._guard)
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
        if self._planned is not None:
            self._planned.finish(
                self._settings,
                timings,
                len(self._written.token_ids),
                self._new_images(),
                completion_tokens,
                self._known,
                self._reused,
            )

    def _new_images(self) -> list[bool]:
        """Which images the tower had to look at."""
        return [image.digest in self._written.prepared for image in self._images]

    def _tell(self, answer: Answer) -> None:
        """Tell those who watch what came of it."""
        finished = Finished(
            prompt=self._prompt,
            images=self._images,
            new=self._new_images(),
            num_ids=len(self._written.token_ids),
            marks=self._written.marks,
            reused=tuple(num_ids for num_ids, _ in self._reused or ()),
            wholes=self._loaded.wholes(self._written.token_ids),
            options=self._options,
            settings=self._settings,
            answer=answer,
            waited_ms=self._watch.waited_ms,
            alone=self._alone,
            trial=self._trial,
        )
        for watcher in self._loaded.watchers:
            watcher(finished)

    def _answer(self, slots: Slots, read: _Read, notes: tuple[str, ...]) -> Answer:
        samples = tuple(row.sample for row in self._rows)
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
            logprobs=samples[0].logprobs,
            samples=samples if len(samples) > 1 else None,
            prediction=self._ahead.prediction if self._ahead and self._alone else None,
            spent=self._spending.spent(self._watch, timings, len(self._rows[0].token_ids) - 1),
            notes=notes if self._trial else (*notes, *self._loaded.unsaid()),
        )
