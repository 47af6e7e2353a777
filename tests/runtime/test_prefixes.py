"""Answers that go on from slots kept of other requests are those of a model that kept nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightrope.errors import InputError
from tightrope.plugins.slot_attention.policies import POLICIES, scores_any_cut
from tightrope.point import OperatingPoint
from tightrope.runtime import kept
from tightrope.runtime.answer import Answer
from tightrope.runtime.model import Model
from tightrope.runtime.settings import resolve

Load = Callable[[str], Model]
SYSTEM = "answer in one word, and be kind."
LONG = "a rule of the house is to be kind. " * 4
"""More than one of the bundle's chunks of 32 tokens."""


def asked(system: str | None, *turns: str) -> list[dict[str, Any]]:
    """A conversation: the system's message, then the user and the assistant in turn."""
    roles = ("user", "assistant")
    said = [{"role": roles[i % 2], "content": turn} for i, turn in enumerate(turns)]
    return said if system is None else [{"role": "system", "content": system}, *said]


def picture(seed: int) -> PIL.Image.Image:
    rng = np.random.default_rng(seed)
    return PIL.Image.fromarray(rng.integers(0, 256, (56, 56, 3), np.uint8))


@pytest.fixture(scope="module")
def fresh(loaded: Load) -> Callable[..., Model]:
    """`fresh("llama")`: a model of its own on the shared backend, which has kept nothing yet."""

    def make(name: str, **bounds: Any) -> Model:
        real = loaded(name)
        return Model(real.bundle, real.backend, **bounds)

    return make


@pytest.mark.parametrize("system", ["s", SYSTEM, LONG])
def test_an_answer_behind_a_kept_prefix_is_the_same_to_the_bit(system: str, recorded: Load) -> None:
    ours = recorded("llama")
    ours.generate(asked(system, "what is it ?"), max_tokens=3)
    backend: Any = ours.backend
    backend.forget()
    for question in ("and where ?", "x" * 70):
        request: Any = {"prompt": asked(system, question), "max_tokens": 12, "ignore_eos": True}
        theirs = recorded("llama")
        again, first = ours.generate(**request), theirs.generate(**request)
        assert again.token_ids == first.token_ids
        expected: Any = theirs.backend
        np.testing.assert_array_equal(backend.logits, expected.logits)
        one, other = backend.slots, expected.slots
        np.testing.assert_array_equal(one.capacity, other.capacity)
        np.testing.assert_array_equal(one.position, other.position)
        np.testing.assert_array_equal(one.score, other.score)
        # The template writes a mark before each message, and one before the user's.
        assert again.usage.cached_tokens == len(system) + 2
        assert first.usage.cached_tokens == 0
        assert again.usage.prompt_tokens == first.usage.prompt_tokens
        backend.forget()


POINTS = [
    None,
    OperatingPoint(kv_budget=90, policy="h2o", recent=8),
    OperatingPoint(kv_budget=90, policy="tova"),
    OperatingPoint(kv_budget=(60, 90, 75), policy="knorm"),
    OperatingPoint(kv_budget=60, policy="streaming"),
    OperatingPoint(kv_budget=90, policy="snapkv"),
]
SYSTEMS = (None, "s", SYSTEM, LONG, LONG + SYSTEM)
QUESTIONS = ("why ?", "a", SYSTEM, "x" * 40)
TURNS = st.lists(st.sampled_from(QUESTIONS), min_size=1, max_size=3).filter(lambda t: len(t) != 2)
REQUESTS = st.tuples(st.sampled_from(SYSTEMS), TURNS, st.sampled_from(POINTS))


@settings(deadline=None, max_examples=12)
@given(
    requests=st.lists(REQUESTS, min_size=2, max_size=6), bound=st.sampled_from((0, 60_000, 1 << 30))
)
def test_answers_do_not_depend_on_what_was_asked_before(
    fresh: Callable[..., Model], requests: list[Any], bound: int
) -> None:
    model = fresh("llama", prefix_bytes=bound)
    chat = model.chat(SYSTEM)
    for system, turns, point in requests:
        request: Any = {"prompt": asked(system, *turns), "point": point, "max_tokens": 6}
        count = model.count(**request)
        answer = model.generate(**request)
        alone = fresh("llama", prefix_bytes=0).generate(**request)
        assert answer.token_ids == alone.token_ids
        assert answer.usage == replace(alone.usage, cached_tokens=answer.usage.cached_tokens)
        assert count.cached_tokens == answer.usage.cached_tokens
        assert alone.usage.cached_tokens == 0
        chat.ask(turns[0], max_tokens=3, point=point)
        assert model._loaded.prefixes.kept.nbytes <= bound


def test_what_is_kept_of_one_policy_serves_no_other(fresh: Callable[..., Model]) -> None:
    model = fresh("llama")
    cached = {
        name: [
            model.generate(
                asked(SYSTEM, question),
                max_tokens=2,
                point=OperatingPoint(kv_budget=90, policy=name, recent=8),
            ).usage.cached_tokens
            for question in ("why ?", "where ?")
        ]
        for name in POLICIES
    }
    assert cached.pop("snapkv") == [0, 0]
    assert set(map(tuple, cached.values())) == {(0, len(SYSTEM) + 2)}


def test_which_policies_score_alike_however_a_prompt_is_cut(loaded: Load) -> None:
    manifest = loaded("llama").bundle.manifest
    found = {
        name: scores_any_cut(resolve(OperatingPoint(kv_budget=90, policy=name), manifest).policy)
        for name in POLICIES
    }
    assert found == {
        "streaming": True, "h2o": True, "tova": True, "knorm": True, "snapkv": False
    }  # fmt: skip


def test_nothing_is_kept_once_a_slot_was_given_up(fresh: Callable[..., Model]) -> None:
    model = fresh("llama")
    point = OperatingPoint(kv_budget=len(LONG), policy="h2o", recent=8)
    for question in ("why ?", "where ?"):
        answer = model.generate(asked(LONG, question), max_tokens=2, point=point)
        assert answer.usage.cached_tokens == 0
    assert list(model._loaded.prefixes.kept) == []


def test_several_prefixes_are_kept_and_the_least_recently_used_goes(
    fresh: Callable[..., Model],
) -> None:
    whole = fresh("llama")
    for system in ("first", "other"):
        whole.generate(asked(system, "?"), max_tokens=1)
    each = whole._loaded.prefixes.kept.nbytes // 2
    model = fresh("llama", prefix_bytes=2 * each)

    def cached(system: str) -> int:
        return model.generate(asked(system, "?"), max_tokens=1).usage.cached_tokens

    assert [cached(system) for system in ("first", "other", "first")] == [0, 0, 7]
    assert [cached(system) for system in ("third", "first", "other")] == [0, 7, 0]
    assert model._loaded.prefixes.kept.nbytes == 2 * each


def test_a_conversation_before_the_question_is_kept_as_well(fresh: Callable[..., Model]) -> None:
    model = fresh("llama")
    shots = ("is it red ?", "no", "is it blue ?", "yes")
    first = model.generate(asked(SYSTEM, *shots, "is it green ?"), max_tokens=2)
    second = model.generate(asked(SYSTEM, *shots, "where is it ?"), max_tokens=2)
    other = model.generate(asked(SYSTEM, "is it red ?"), max_tokens=2)
    assert first.usage.cached_tokens == 0
    assert second.usage.cached_tokens == first.usage.prompt_tokens - len("is it green ?") - 1
    assert other.usage.cached_tokens == len(SYSTEM) + 2


def test_a_chat_begins_from_what_another_one_read(fresh: Callable[..., Model]) -> None:
    model = fresh("llama")
    first, second = model.chat(SYSTEM), model.chat(SYSTEM)
    one = [first.ask(text, max_tokens=6) for text in ("why ?", "and then ?")]
    two = [second.ask(text, max_tokens=6) for text in ("why ?", "and then ?")]
    assert [answer.token_ids for answer in one] == [answer.token_ids for answer in two]
    assert (one[0].usage.cached_tokens, two[0].usage.cached_tokens) == (0, len(SYSTEM) + 2)
    assert one[1].usage == two[1].usage
    assert second.ask("x", max_tokens=2).notes == ()


def test_answers_of_several_samples_go_on_from_it(fresh: Callable[..., Model]) -> None:
    model = fresh("llama")
    options: Any = {"n": 3, "temperature": 1.5, "max_tokens": 8}
    first = model.generate(asked(SYSTEM, "why ?"), **options)
    again = model.generate(asked(SYSTEM, "why ?"), **options)
    assert again.samples == first.samples
    assert again.usage.cached_tokens == len(SYSTEM) + 2


def test_text_and_ids_are_read_as_ever(fresh: Callable[..., Model]) -> None:
    model = fresh("llama")
    ids = model.token_ids(asked(SYSTEM, "why ?"))
    for prompt in ("why ?", ids, asked(None, "why ?")):
        model.generate(prompt, max_tokens=1)
    assert list(model._loaded.prefixes.kept) == []


def looked(*questions: str) -> list[dict[str, Any]]:
    """A picture that is spoken of before the question is asked."""
    shown = [{"type": "image"}, {"type": "text", "text": "this is the room."}]
    first = {"role": "user", "content": shown}
    return [first, *asked(None, "user", "i see it.", *questions)[1:]]


@pytest.mark.parametrize(
    ("point", "again"),
    [
        (None, True),
        (OperatingPoint(resolution=84), True),
        (OperatingPoint(selector="divprune", keep="50%"), True),
        (OperatingPoint(selector="random", keep="50%"), True),
        (OperatingPoint(selector="fastv", keep="50%"), False),
        (OperatingPoint(kv_budget=60, policy="h2o", recent=8), True),
    ],
)
def test_images_in_the_prefix_are_reused_where_they_were_selected_alike(
    point: OperatingPoint | None, again: bool, fresh: Callable[..., Model]
) -> None:
    model = fresh("llava")

    def answer(of: Model, seed: int, question: str, **more: Any) -> Answer:
        return of.generate(
            looked(question), [picture(seed)], max_tokens=5, **({"point": point} | more)
        )

    first = answer(model, 1, "what is it ?")
    assert first.usage.cached_tokens == 0
    second = answer(model, 1, "where ?")
    expected = first.usage.prompt_tokens - len("what is it ?") - 1
    assert second.usage.cached_tokens == (expected if again else 0)
    assert second.token_ids == answer(fresh("llava"), 1, "where ?").token_ids
    assert second.usage.visual_tokens == first.usage.visual_tokens
    assert answer(model, 2, "where ?").usage.cached_tokens == 0
    other = OperatingPoint(selector="uniform", keep=5)
    assert answer(model, 1, "where ?", point=other).usage.cached_tokens == 0


def test_another_draw_of_visual_tokens_is_another_prefix(fresh: Callable[..., Model]) -> None:
    model = fresh("llava")
    point = OperatingPoint(selector="random", keep="50%")
    cached = [
        model.generate(
            looked("where ?"), [picture(1)], max_tokens=2, point=point, seed=seed
        ).usage.cached_tokens
        for seed in (0, 1, 0)
    ]
    assert cached[:2] == [0, 0] and cached[2] > 0


def test_a_schedule_goes_on_from_text_that_was_kept(fresh: Callable[..., Model]) -> None:
    model, point = fresh("llava"), OperatingPoint(selector="fastv", keep="25%")
    request: Any = {"images": [picture(3)], "max_tokens": 6, "point": point}
    model.generate(asked(SYSTEM, "what is it ?"), **request)
    count = model.count(asked(SYSTEM, "where ?"), [picture(3)], point=point)
    answer = model.generate(asked(SYSTEM, "where ?"), **request)
    alone = fresh("llava").generate(asked(SYSTEM, "where ?"), **request)
    assert answer.token_ids == alone.token_ids
    assert answer.usage.cached_tokens == count.cached_tokens == len(SYSTEM) + 2
    assert answer.usage.visual_tokens_kept == 4


def test_a_selection_by_the_question_keeps_what_stands_before_the_image(
    fresh: Callable[..., Model],
) -> None:
    model, point = fresh("llava"), OperatingPoint(selector="flashvlm", keep="25%")
    for system, question in ((SYSTEM, "what is it ?"), (SYSTEM, "where ?")):
        request: Any = {"images": [picture(4)], "max_tokens": 4, "point": point}
        answer = model.generate(asked(system, question), **request)
        alone = fresh("llava").generate(asked(system, question), **request)
        assert answer.token_ids == alone.token_ids
    assert answer.usage.cached_tokens == len(SYSTEM) + 2


def test_a_prompt_that_no_slots_hold_keeps_nothing(fresh: Callable[..., Model]) -> None:
    model = fresh("llama")
    with pytest.raises(InputError, match="slots"):
        model.generate(asked(SYSTEM, "x" * 3000))
    assert list(model._loaded.prefixes.kept) == []


def test_a_request_that_would_not_fit_comes_before_what_is_kept(
    fresh: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = fresh("llava")
    model.generate(asked(SYSTEM, "?"), [picture(5)], max_tokens=1)
    prefixes, vision = model._loaded.prefixes, model._loaded.vision
    assert vision is not None and prefixes.kept.nbytes and vision.kept.nbytes
    monkeypatch.setattr(kept, "read_meminfo", lambda: {"MemAvailable": kept.SPARE_BYTES})
    answer = model.generate("?", max_tokens=1)
    assert list(prefixes.kept) == [] and list(vision.kept) == []
    assert answer.finish_reason == "length"


def test_threads_share_what_is_kept(fresh: Callable[..., Model]) -> None:
    model, asks = fresh("llama"), [(s, q) for s in (SYSTEM, LONG) for q in QUESTIONS]
    found: list[tuple[str, str, Answer]] = []

    def ask(system: str, question: str) -> None:
        answer = model.generate(asked(system, question), max_tokens=6)
        found.append((system, question, answer))

    threads = [threading.Thread(target=ask, args=each) for each in asks * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for system, question, answer in found:
        alone = fresh("llama", prefix_bytes=0).generate(asked(system, question), max_tokens=6)
        assert answer.token_ids == alone.token_ids
    cached = sorted(answer.usage.cached_tokens for *_, answer in found)
    short, long = len(SYSTEM) + 2, len(LONG) + 2
    assert cached == sorted([0, 0, *[short] * (len(asks) - 1), *[long] * (len(asks) - 1)])


def test_forgetting_reads_from_the_start(fresh: Callable[..., Model]) -> None:
    model = fresh("llama")
    for _ in range(2):
        model.generate(asked(SYSTEM, "?"), max_tokens=1)
    model.forget_prefixes()
    assert model.generate(asked(SYSTEM, "?"), max_tokens=1).usage.cached_tokens == 0


@pytest.mark.parametrize("name", ["image_bytes", "prefix_bytes"])
@pytest.mark.parametrize("value", [-1, 1.5, None, True])
def test_bounds_that_are_none_are_refused(name: str, value: Any, loaded: Load) -> None:
    real = loaded("llama")
    with pytest.raises(InputError, match=f"{name} is {value}; accepted: bytes, 0 or more"):
        Model(real.bundle, real.backend, **{name: value})


@pytest.mark.parametrize("name", ["mistral", "gemma3"])
def test_what_has_left_a_window_is_missed_by_nobody(
    name: str, recorded: Load, hugging_face: Callable[[str], Any], oracle: Any
) -> None:
    model, theirs = recorded(name), hugging_face(name)
    backend: Any = model.backend
    first = model.generate(asked(LONG, "what is it ?"), max_tokens=2)
    backend.forget()
    answer = model.generate(asked(LONG, "and where ?"), max_tokens=8, ignore_eos=True)
    # The prompt is longer than the windows of 21 tokens.
    assert first.usage.cached_tokens == 0 and answer.usage.cached_tokens == len(LONG) + 2
    ids = model.token_ids(asked(LONG, "and where ?"))
    expected = oracle.continued(theirs, oracle.text_embeds(theirs, ids), answer.token_ids)
    np.testing.assert_allclose(backend.logits, expected, atol=1e-4)
    assert expected.argmax(-1).tolist() == list(answer.token_ids)
