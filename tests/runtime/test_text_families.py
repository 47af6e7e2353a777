"""Every text family through the public interface against Hugging Face's model without a cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import tightrope as tr
from tightrope.bundle import Bundle
from tightrope.errors import InputError
from tightrope.inputs.layout import assemble
from tightrope.runtime.cancel import Cancel
from tightrope.runtime.controls import Control, Draft, State, most_tokens
from tightrope.runtime.conversation import Conversation
from tightrope.runtime.generation import Generation, Row, Start
from tightrope.runtime.loaded import Loaded
from tightrope.runtime.model import Model
from tightrope.runtime.sampling import Sampler
from tightrope.runtime.settings import resolve
from tightrope.runtime.thought import Thought

Load = Callable[[str], Model]
HuggingFace = Callable[[str], Any]
LOGITS = 1e-4
"""Largest difference of logits in float32."""
WINDOW, LONGROPE = 21, 1024
WINDOWS = {
    "mistral": (WINDOW, WINDOW),
    "ministral": (WINDOW, 0, WINDOW),
    "gemma2": (WINDOW, 0, WINDOW),
    "gemma3": (WINDOW, 0, WINDOW),
    "phi3": (WINDOW, WINDOW),
}
TURNS = ("how many cups are there on the table in front of you?", "and which of them is red?")


def prompt(length: int, seed: int = 5) -> list[int]:
    rng = np.random.default_rng(seed)
    return [int(token) for token in rng.integers(5, 256, length)]


def with_changes(model: Model, **changes: Any) -> Model:
    """The same, on a bundle that says something else of itself."""
    manifest = replace(model.bundle.manifest, **changes)
    return Model(Bundle(model.bundle.path, manifest), model.backend)


def as_hugging_face(model: Model, theirs: Any, oracle: Any, ids: list[int], answer: Any) -> None:
    """Logits within the tolerance, and every token the one that theirs would have taken."""
    backend: Any = model.backend
    wanted = oracle.continued(theirs, oracle.text_embeds(theirs, ids), answer.token_ids)
    np.testing.assert_allclose(backend.logits, wanted, atol=LOGITS, rtol=0)
    assert wanted.argmax(-1).tolist() == list(answer.token_ids)


def by_layer(model: Model, tokens: int) -> list[int]:
    """Slots that each layer holds of so many tokens."""
    manifest = model.bundle.manifest
    windows = manifest.windows or (0,) * manifest.dims.num_hidden_layers
    return [min(tokens, window or tokens) for window in windows]


def held(model: Model) -> npt.NDArray[np.int64]:
    backend: Any = model.backend
    occupied: npt.NDArray[np.int64] = backend.slots.occupied.max((1, 2))
    return occupied


@pytest.mark.parametrize("chunk", [32, 512])
def test_700_tokens_in_chunks_answer_as_hugging_face(
    text_family: str, chunk: int, recorded: Load, hugging_face: HuggingFace, oracle: Any
) -> None:
    model = with_changes(recorded(text_family), prefill_chunk=chunk)
    ids = prompt(700)
    answer = model.generate(ids, max_tokens=20, ignore_eos=True)
    assert len(answer.token_ids) == 20
    as_hugging_face(model, hugging_face(text_family), oracle, ids, answer)
    # A layer holds no more than it sees; it is not a budget that does it.
    assert held(model).tolist() == by_layer(model, 719)


def test_a_second_turn_reads_only_what_is_new(
    text_family: str, recorded: Load, hugging_face: HuggingFace, oracle: Any
) -> None:
    model = recorded(text_family)
    backend: Any = model.backend
    chat = model.chat()
    first = chat.ask(TURNS[0], max_tokens=12)
    backend.forget()
    second = chat.ask(TURNS[1], max_tokens=12)
    assert second.usage.cached_tokens == first.usage.prompt_tokens + 11 > WINDOW
    ids = model.token_ids(chat.messages[:-1])
    as_hugging_face(model, hugging_face(text_family), oracle, ids, second)


@pytest.mark.parametrize("policy", ["h2o", "knorm"])
def test_a_budget_that_holds_everything_changes_no_token(
    text_family: str, policy: str, recorded: Load
) -> None:
    model = recorded(text_family)
    backend: Any = model.backend
    free = model.generate(prompt(100), max_tokens=24, ignore_eos=True)
    logits = backend.logits
    backend.forget()
    point = tr.OperatingPoint(policy=policy, kv_budget=123)
    bound = model.generate(prompt(100), max_tokens=24, ignore_eos=True, point=point)
    assert bound.token_ids == free.token_ids
    np.testing.assert_allclose(backend.logits, logits, atol=LOGITS)
    assert held(model).tolist() == by_layer(model, 123)


def test_windows_are_those_of_the_layers(text_family: str, loaded: Load) -> None:
    assert loaded(text_family).bundle.manifest.windows == WINDOWS.get(text_family, ())


def test_forks_go_on_from_slots_of_which_some_were_given_up(
    recorded: Load, hugging_face: HuggingFace, oracle: Any
) -> None:
    model, theirs = recorded("gemma2"), hugging_face("gemma2")
    backend: Any = model.backend
    answer = model.generate(prompt(90), max_tokens=30, n=3, temperature=1.0, seed=4)
    assert answer.samples is not None
    assert len({sample.token_ids for sample in answer.samples}) == 3
    embeds = oracle.text_embeds(theirs, prompt(90))
    wanted = oracle.continued(theirs, embeds, answer.samples[0].token_ids)
    np.testing.assert_allclose(backend.logits, wanted, atol=LOGITS, rtol=0)


def test_a_draft_leaves_no_trace_where_windows_give_slots_up(
    loaded: Load, parts_of: Callable[[Model], Loaded]
) -> None:
    parts = parts_of(loaded("gemma2"))
    settings, conversation = resolve(None, parts.manifest), Conversation(parts)
    stream = assemble(prompt(60), None, (), parts.embeddings)
    *_, logits = conversation.read(stream, 0, settings, Cancel())

    def answered(*controls: Control) -> Row:
        row = Row(parts.language.decoder(None, True), Thought(None))
        generation = Generation(
            parts.backend,
            conversation.slots.fork(1),
            Start(logits=logits, ordinal=60),
            [row],
            Sampler(0.0, 1.0, 0),
            parts.embeddings,
            [most_tokens(30), *controls],
            settings,
        )
        for _ in generation.run():
            pass
        return row

    def drafting(state: State) -> Draft | None:
        wanted = Draft((7, 8), 5, frozenset(), lambda: False)
        return wanted if len(state.token_ids) == 10 else None

    drafted = answered(drafting)
    assert len(drafted.draft[1]) == 5
    assert drafted.token_ids == answered().token_ids


def test_a_long_answer_never_fills_layers_that_see_a_window(loaded: Load) -> None:
    model = with_changes(loaded("mistral"), slots=64)
    answer = model.generate(prompt(60), max_tokens=50, ignore_eos=True)
    assert (len(answer.token_ids), answer.usage.occupied_slots) == (50, WINDOW)
    # Where one layer sees everything, its slots are the end of it.
    model = with_changes(loaded("ministral"), slots=64)
    answer = model.generate(prompt(60), max_tokens=50, ignore_eos=True)
    assert (answer.finish_reason, len(answer.token_ids)) == ("length", 5)
    counted = model.count(prompt(60), max_tokens=50)
    assert (counted.completion_tokens, counted.occupied_slots) == (5, 64)


def test_a_window_wider_than_the_slots_gives_nothing_up(loaded: Load) -> None:
    manifest = replace(loaded("ministral").bundle.manifest, slots=64, windows=(100, 0, 64))
    settings = resolve(None, manifest)
    assert settings.gives_up.tolist() == [False, False, True]
    assert settings.kv_budget.max(1).tolist() == [64, 64, 64]


def test_a_budget_below_a_window_keeps_the_newest_there(loaded: Load) -> None:
    manifest = loaded("ministral").bundle.manifest
    point = tr.OperatingPoint(policy="h2o", kv_budget=(9, 60, 40), sinks=1, recent=4)
    settings = resolve(point, manifest)
    assert settings.evicts and settings.kv_budget.max(1).tolist() == [9, 60, WINDOW]
    newest, h2o = settings.policy[0], settings.policy[1]
    assert newest.tolist() == settings.policy[2].tolist() == [1, 0, 1, 0, 1, 0, 0, 1]
    assert h2o[1] == 1 and h2o[6:].tolist() == [1, 4]


def test_longrope_ends_where_its_frequencies_would_change(
    recorded: Load, hugging_face: HuggingFace, oracle: Any
) -> None:
    model = recorded("phi3")
    assert model.bundle.manifest.max_positions == LONGROPE
    ids = prompt(LONGROPE - 4)
    answer = model.generate(ids, max_tokens=50, ignore_eos=True)
    assert (answer.finish_reason, len(answer.token_ids)) == ("length", 5)
    as_hugging_face(model, hugging_face("phi3"), oracle, ids, answer)
    assert model.count(ids, max_tokens=50).completion_tokens == 5
    with pytest.raises(InputError, match=f"have {LONGROPE + 1} tokens.*hold for {LONGROPE}"):
        model.generate(prompt(LONGROPE + 1))


def test_hugging_faces_longrope_does_change_there(hugging_face: HuggingFace, oracle: Any) -> None:
    """Else the limit would be for nothing."""
    theirs = hugging_face("phi3")
    embeds = oracle.text_embeds(theirs, prompt(LONGROPE + 1))
    short, long = (
        oracle.continued(theirs, embeds[-40:], [5, 5], range(end - 41, end - 1))
        for end in (LONGROPE, LONGROPE + 1)
    )
    assert np.abs(short - long).max() > 1e-2
