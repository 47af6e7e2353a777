"""Where answers end, what is shown of them meanwhile, and how they are drawn."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tightrope.bundle import Bundle
from tightrope.errors import InputError
from tightrope.interface.calls import Call
from tightrope.point import OperatingPoint
from tightrope.runtime.answer import Answer, FinishReason, Piece
from tightrope.runtime.backends.null import NullBackend
from tightrope.runtime.cancel import Cancel
from tightrope.runtime.controls import Control, End, Force, State, most_tokens
from tightrope.runtime.generation import Generation, Row, Start
from tightrope.runtime.loaded import Loaded
from tightrope.runtime.model import Model
from tightrope.runtime.sampling import Sampler
from tightrope.runtime.settings import Settings, resolve
from tightrope.runtime.slots import Slots
from tightrope.runtime.stream import Stream
from tightrope.runtime.thought import Thought
from tightrope.runtime.tokenizer import Tokenizer

END = 1
PROMPT = list(range(20, 40))

Scripted = Callable[..., Model]
Load = Callable[[str], Model]


@pytest.fixture(scope="session")
def scripted(bundle: Callable[[str], Path]) -> Scripted:
    """`scripted("hello")` answers with these tokens, then with its last one for ever."""

    def make(text: str, name: str = "llama", end: bool = False) -> Model:
        opened = Bundle.open(bundle(name))
        # By character or by byte: a bare text is encoded as an answer is written.
        tokens = Tokenizer(opened.file("tokenizer.json"), {}, False).encode_prompt(text)
        tokens += [END] if end else []
        dims = opened.manifest.dims
        return Model(opened, NullBackend(dims, lambda call: tokens[min(call, len(tokens) - 1)]))

    return make


def streamed(stream: Stream) -> tuple[list[str], Answer]:
    pieces = list(stream)
    assert all(piece.answer is None for piece in pieces[:-1])
    answer = pieces[-1].answer
    assert answer is not None
    return [piece.text for piece in pieces], answer


def test_an_end_token_stops_and_is_not_text(scripted: Scripted) -> None:
    answer = scripted("hello", end=True).generate(PROMPT)
    assert answer.text == "hello"
    assert answer.finish_reason == "stop"
    assert answer.token_ids[-1] == END and len(answer.token_ids) == 6
    assert answer.backend == "null"


def test_an_end_token_can_be_ignored(scripted: Scripted) -> None:
    answer = scripted("hello", end=True).generate(PROMPT, ignore_eos=True, max_tokens=9)
    assert answer.finish_reason == "length"
    assert answer.text == "hello" and answer.token_ids[5:] == (END,) * 4


@pytest.mark.parametrize("max_tokens", [1, 3, 11])
def test_max_tokens_ends_with_length(max_tokens: int, scripted: Scripted) -> None:
    answer = scripted("hello world").generate(PROMPT, max_tokens=max_tokens)
    assert answer.text == "hello world"[:max_tokens]
    assert answer.finish_reason == "length"
    assert answer.usage.completion_tokens == max_tokens


@pytest.mark.parametrize("max_tokens", [0, -1, True, 2.5])
def test_max_tokens_is_a_whole_number(max_tokens: Any, scripted: Scripted) -> None:
    with pytest.raises(InputError, match="max_tokens"):
        scripted("x").generate(PROMPT, max_tokens=max_tokens)


@pytest.mark.parametrize(
    ("stop", "text"),
    [
        (["lo w"], "hel"),
        (["o"], "hell"),
        (["world", "lo"], "hel"),
        (["h"], ""),
        (["hello world", "ello"], "h"),
    ],
)
def test_a_stop_string_ends_and_is_not_text(stop: list[str], text: str, scripted: Scripted) -> None:
    answer = scripted("hello world", end=True).generate(PROMPT, stop=stop)
    assert answer.text == text
    assert answer.finish_reason == "stop"


@pytest.mark.parametrize("stop", [None, ["lo w"], ["worldly"], ["d!"]])
@pytest.mark.parametrize("max_tokens", [4, 256])
def test_pieces_joined_are_the_answers_text(
    stop: list[str] | None, max_tokens: int, scripted: Scripted
) -> None:
    def model() -> Model:
        return scripted("hello world", end=True)

    whole = model().generate(PROMPT, stop=stop, max_tokens=max_tokens)
    texts, answer = streamed(model().stream(PROMPT, stop=stop, max_tokens=max_tokens))
    assert "".join(texts) == answer.text == whole.text
    assert answer.token_ids == whole.token_ids
    assert answer.finish_reason == whole.finish_reason
    assert len(texts) > 2


def test_what_a_stop_string_may_claim_is_held_back_and_given_at_the_end(
    scripted: Scripted,
) -> None:
    texts, answer = streamed(scripted("abcab", end=True).stream(PROMPT, stop=["abd"]))
    assert answer.text == "abcab"
    assert "a" not in texts and "".join(texts) == "abcab"


def test_a_character_of_several_tokens_is_shown_whole(scripted: Scripted) -> None:
    text = "né 😀 你"
    texts, answer = streamed(scripted(text, "qwen2", end=True).stream(PROMPT))
    assert answer.text == text
    assert "😀" in texts
    assert "\ufffd" not in "".join(texts)


def test_half_a_character_at_the_end_is_shown_as_a_replacement(scripted: Scripted) -> None:
    texts, answer = streamed(scripted("a😀", "qwen2").stream(PROMPT, max_tokens=3))
    assert answer.text == "".join(texts) == "a\ufffd"


def test_full_slots_end_with_length(scripted: Scripted) -> None:
    model = scripted("x")
    slots = model.bundle.manifest.slots
    answer = model.generate([30] * (slots - 8), max_tokens=100)
    assert answer.finish_reason == "length"
    # The last token needs no slot: nothing is asked after it.
    assert answer.usage.completion_tokens == 9
    assert answer.usage.occupied_slots == slots


def test_a_budget_goes_on_where_full_slots_would_end(scripted: Scripted) -> None:
    model = scripted("x")
    point = OperatingPoint(kv_budget=64)
    answer = model.generate([30] * 2100, max_tokens=100, point=point)
    assert answer.usage.completion_tokens == 100
    assert answer.usage.occupied_slots == 64


def test_a_prompt_that_fits_no_slots_is_refused_before_anything_runs(scripted: Scripted) -> None:
    model = scripted("x")
    with pytest.raises(InputError, match="2048"):
        model.generate([30] * 2049)


def test_token_ids_are_taken_as_they_are(scripted: Scripted) -> None:
    model = scripted("x")
    assert model.token_ids(PROMPT) == PROMPT
    assert model.token_ids("hi") != PROMPT
    answer = model.generate(PROMPT, max_tokens=1)
    assert answer.usage.prompt_tokens == len(PROMPT)
    with pytest.raises(InputError, match="outside the vocabulary"):
        model.generate([30, 256])
    with pytest.raises(InputError):
        model.generate([])


class Paced:
    """A backend that decodes a token for each permit."""

    def __init__(self, backend: Any) -> None:
        self._backend, self.permits = backend, threading.Semaphore(0)

    def decode(self, *arguments: Any) -> Any:
        assert self.permits.acquire(timeout=20), "nobody asked for a token"
        return self._backend.decode(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)


@pytest.mark.parametrize("after", [0, 1, 5])
def test_cancelling_between_pieces_ends_within_one_token(after: int, scripted: Scripted) -> None:
    model = scripted("abcdefghijklmnop")
    paced = Paced(model.backend)
    stream = Model(model.bundle, paced).stream(PROMPT, max_tokens=100)
    pieces: list[Piece] = []
    for piece in stream:
        pieces.append(piece)
        if len(pieces) == after + 1:
            stream.cancel()
        paced.permits.release()
    answer = pieces[-1].answer
    assert answer is not None
    assert answer.finish_reason == "cancelled"
    assert answer.text == "abcdefghijklmnop"[: after + 2]


def test_a_thread_can_cancel_a_running_decode(loaded: Load) -> None:
    stream = loaded("llama").stream(PROMPT, max_tokens=2000, ignore_eos=True)
    assert next(stream).answer is None
    thread = threading.Thread(target=stream.cancel)
    thread.start()
    _, answer = streamed(stream)
    thread.join()
    assert answer.finish_reason == "cancelled"
    assert 0 < answer.usage.completion_tokens < 2000


def test_cancelling_before_the_start_reads_nothing(loaded: Load) -> None:
    model = loaded("llama")
    paced = Paced(model.backend)
    before = Model(model.bundle, paced).stream(PROMPT, max_tokens=2)
    stream = model.stream(PROMPT)
    stream.cancel()
    paced.permits.release()
    texts, answer = streamed(stream)
    assert answer.finish_reason == "cancelled"
    assert texts == [""] and answer.token_ids == ()
    assert answer.usage.occupied_slots == 0
    assert before.answer().usage.completion_tokens == 2


class Gate:
    """A backend that tells when its prefill has run a number of times."""

    def __init__(self, backend: Any, calls: int) -> None:
        self._backend, self._left = backend, calls
        self.reached, self.calls = threading.Event(), 0

    def prefill(self, *arguments: Any) -> Any:
        self.calls += 1
        if self.calls == self._left:
            self.reached.set()
        return self._backend.prefill(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)


def test_a_thread_can_break_off_a_running_prefill(loaded: Load) -> None:
    real = loaded("llama")
    gate = Gate(real.backend, 5)
    stream = Model(real.bundle, gate).stream([30, 40, 50, 60] * 500)

    def cancel() -> None:
        gate.reached.wait(20)
        stream.cancel()

    thread = threading.Thread(target=cancel)
    thread.start()
    _, answer = streamed(stream)
    thread.join()
    assert answer.finish_reason == "cancelled"
    assert answer.token_ids == ()
    assert 5 <= gate.calls < 2000 // 32


def test_a_cancelled_prefill_leaves_a_chat_that_can_go_on(loaded: Load) -> None:
    real = loaded("llama")
    gate = Gate(real.backend, 3)
    chat = Model(real.bundle, gate).chat()
    chat.ask("first", max_tokens=4)
    gate.calls, gate._left = 0, 2
    stream = chat.stream("x" * 900)
    gate.reached.wait(20)
    stream.cancel()
    _, answer = streamed(stream)
    assert answer.finish_reason == "cancelled" and answer.token_ids == ()
    again = chat.ask("second", max_tokens=6)
    assert again.usage.cached_tokens == 0
    fresh = real.generate(chat.messages[:-1], max_tokens=6)
    assert again.token_ids == fresh.token_ids


def test_a_seed_draws_the_same_answer_again_and_another_seed_another(loaded: Load) -> None:
    model = loaded("llama")

    def draw(seed: int) -> Answer:
        return model.generate(PROMPT, max_tokens=20, temperature=1.3, top_p=0.95, seed=seed)

    assert draw(3).token_ids == draw(3).token_ids
    assert len({draw(seed).token_ids for seed in range(4)}) == 4


def test_the_first_of_several_samples_is_the_single_one(loaded: Load) -> None:
    model = loaded("llama")
    options: dict[str, Any] = {"max_tokens": 12, "temperature": 1.0, "seed": 9}
    one, three = model.generate(PROMPT, **options), model.generate(PROMPT, n=3, **options)
    assert one.samples is None
    assert three.samples is not None and len(three.samples) == 3
    assert three.samples[0].token_ids == three.token_ids == one.token_ids
    assert three.samples[0].text == three.text == one.text
    assert len({sample.token_ids for sample in three.samples}) == 3
    assert three.usage.completion_tokens == sum(len(s.token_ids) for s in three.samples)
    assert three.usage.prompt_tokens == one.usage.prompt_tokens


def test_greedy_samples_are_all_the_same(loaded: Load) -> None:
    answer = loaded("llama").generate(PROMPT, max_tokens=8, n=3)
    assert answer.samples is not None
    assert {sample.token_ids for sample in answer.samples} == {answer.token_ids}


def test_times_add_up(loaded: Load) -> None:
    timings = loaded("llama").generate(PROMPT, max_tokens=8, ignore_eos=True).timings
    assert 0 < timings.prefill_ms <= timings.ttft_ms < timings.total_ms
    assert timings.decode_ms == pytest.approx(timings.total_ms - timings.ttft_ms)
    assert timings.vision_ms == timings.select_ms == 0


def test_concurrent_requests_do_not_disturb_each_other(loaded: Load) -> None:
    model = loaded("llama")
    prompts = [[30 + i, 50, 70 - i, 90] * 10 for i in range(4)]
    expected = [model.generate(p, max_tokens=24, ignore_eos=True).token_ids for p in prompts]
    found: dict[int, tuple[int, ...]] = {}

    def ask(number: int) -> None:
        answer = model.generate(prompts[number], max_tokens=24, ignore_eos=True)
        found[number] = answer.token_ids

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number] for number in range(4)] == expected


def forced_once(token_ids: tuple[int, ...]) -> Control:
    """A control that forces tokens after the second one."""
    return lambda state: Force(token_ids) if len(state.token_ids) == 2 else None


def run_with(model: Model, controls: list[Control], steps: int = 12) -> Row:
    """One row of scripted tokens under controls."""
    loaded = Loaded(model.bundle, model.backend, lambda: 0.0)
    settings = resolve(None, model.bundle.manifest)
    slots = Slots(model.bundle.manifest.dims, 1, model.backend.make_storage)
    row = Row(loaded.language.decoder(["zz"], False), Thought(None))
    logits, _ = model.backend.prefill(slots, call_of(settings), Cancel())
    generation = Generation(
        model.backend,
        slots,
        Start(logits=logits, ordinal=1),
        [row],
        Sampler(0.0, 1.0, 0),
        loaded.embeddings,
        [*controls, most_tokens(steps)],
        settings,
    )
    shown = "".join(generation.run())
    assert shown == row.text
    return row


def call_of(settings: Settings) -> Call:
    """A prompt of one token; the null backend reads nothing but its ordinal."""
    place = np.zeros((1, 1), np.int32)
    embeds = np.zeros((1, 1, 1), np.float32)
    return Call(embeds, place, place.astype(np.int64), settings.kv_budget, settings.policy)


def test_forced_tokens_are_taken_in_their_order_and_then_sampling_goes_on(
    scripted: Scripted,
) -> None:
    model = scripted("abcdefghijklmnop")
    forced = tuple(scripted_ids(model, "XYZ"))
    row = run_with(model, [forced_once(forced)], steps=8)
    assert row.text == "abXYZfgh"
    assert row.finish_reason == "length"


def scripted_ids(model: Model, text: str) -> list[int]:
    return Tokenizer(model.bundle.file("tokenizer.json"), {}, False).encode_prompt(text)


def test_the_first_control_that_wants_something_gets_it(scripted: Scripted) -> None:
    asked: list[str] = []

    def ends(reason: FinishReason) -> Control:
        def control(state: State) -> End | None:
            asked.append(reason)
            return End(reason) if len(state.token_ids) == 3 else None

        return control

    row = run_with(scripted("abcdef"), [ends("stop"), ends("cancelled")])
    assert row.finish_reason == "stop" and row.text == "abc"
    assert asked == ["stop", "cancelled"] * 2 + ["stop"]


def test_a_control_is_told_how_much_room_is_left(scripted: Scripted) -> None:
    rooms: list[int] = []
    model = scripted("abcdef")
    run_with(model, [lambda state: rooms.append(state.room)], steps=4)
    slots = model.bundle.manifest.slots
    assert rooms == [slots, slots - 1, slots - 2, slots - 3]


def test_the_clock_runs_from_the_submission_to_the_last_token(scripted: Scripted) -> None:
    real = scripted("abc")
    ticks = itertools.count(step=0.001)
    answer = Model(real.bundle, real.backend, lambda: next(ticks)).generate(PROMPT, max_tokens=3)
    timings = answer.timings
    # Submitted at 0, image and prefill read the clock twice each, then the first token.
    assert timings.prefill_ms == pytest.approx(1)
    assert 0 < timings.ttft_ms < timings.total_ms
    assert timings.decode_ms == pytest.approx(timings.total_ms - timings.ttft_ms)
