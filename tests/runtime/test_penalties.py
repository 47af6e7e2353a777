"""Penalties, bias and what is sampled from: equal to transformers where it has them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.errors import InputError
from tightrope.runtime.choosing import Chooser
from tightrope.runtime.logprobs import LEAST, Logprobs
from tightrope.runtime.model import Model
from tightrope.runtime.options import Options
from tightrope.runtime.penalties import Penalties
from tightrope.runtime.sampling import Sampler

Logits = npt.NDArray[np.float32]
Load = Callable[[str], Model]
VOCABULARY = 60


def drawn(seed: int, rows: int = 1, scale: float = 4.0) -> Logits:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((rows, VOCABULARY)) * scale).astype(np.float32)


def changed(options: Options, prompt: list[int], rows: list[list[int]], logits: Logits) -> Logits:
    penalties = Penalties(options, VOCABULARY)
    penalties.watch(prompt, rows)
    before = logits.copy()
    found = penalties(logits)
    np.testing.assert_array_equal(logits, before)  # they are the backend's
    return found


tokens = st.lists(st.integers(0, VOCABULARY - 1), max_size=12)


@given(tokens, tokens, st.floats(0.1, 5.0), st.integers(0, 2**20))
def test_repetition_is_transformers_own(
    prompt: list[int], said: list[int], penalty: float, seed: int
) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    logits = drawn(seed)
    found = changed(Options(repetition_penalty=penalty), prompt, [said], logits)
    ids = torch.tensor([[*prompt, *said]], dtype=torch.int64)
    processor = transformers.RepetitionPenaltyLogitsProcessor(penalty=penalty)
    expected = processor(ids, torch.tensor(logits.copy())).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@given(
    st.lists(tokens, min_size=1, max_size=3),
    st.floats(-2, 2),
    st.floats(-2, 2),
    st.dictionaries(st.integers(0, VOCABULARY - 1), st.floats(-100, 100), max_size=4),
    st.integers(0, 2**20),
)
def test_presence_frequency_and_bias_are_openais_formula(
    rows: list[list[int]], presence: float, frequency: float, bias: dict[int, float], seed: int
) -> None:
    logits = drawn(seed, len(rows))
    options = Options(
        presence_penalty=presence, frequency_penalty=frequency, logit_bias=bias, n=len(rows)
    )
    found = changed(options, [1, 2, 3], rows, logits)
    for row, said in enumerate(rows):
        for token in range(VOCABULARY):
            count = said.count(token)
            taken = count * frequency + (count > 0) * presence
            expected = float(logits[row, token]) - taken + bias.get(token, 0.0)
            assert found[row, token] == pytest.approx(expected, rel=1e-5, abs=1e-4)


def test_rows_are_watched_while_they_grow() -> None:
    penalties = Penalties(Options(frequency_penalty=1.0), VOCABULARY)
    rows: list[list[int]] = [[], []]
    penalties.watch([], rows)
    shared = penalties(drawn(0))
    np.testing.assert_array_equal(shared, drawn(0))
    rows[0] += [7, 7]
    rows[1] += [9]
    logits = drawn(1, 2)
    found = penalties(logits)
    assert found[0, 7] == pytest.approx(logits[0, 7] - 2) and found[0, 9] == logits[0, 9]
    assert found[1, 9] == pytest.approx(logits[1, 9] - 1) and found[1, 7] == logits[1, 7]
    rows[0].append(7)
    assert penalties(logits)[0, 7] == pytest.approx(logits[0, 7] - 3)


@pytest.mark.parametrize(
    ("top_k", "top_p", "min_p"),
    [(0, 1.0, 0.1), (5, 1.0, 0.0), (5, 0.7, 0.0), (0, 0.8, 0.2), (8, 0.9, 0.05), (1, 1.0, 0.0)],
)
@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.8])
def test_what_is_sampled_from_is_transformers_own(
    top_k: int, top_p: float, min_p: float, temperature: float
) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    for seed in range(5):
        logits = drawn(seed, scale=2.0)
        scores = torch.tensor(logits.copy()) / temperature
        if top_k:
            scores = transformers.TopKLogitsWarper(top_k)(None, scores)
        if top_p < 1:
            scores = transformers.TopPLogitsWarper(top_p)(None, scores)
        if min_p:
            scores = transformers.MinPLogitsWarper(min_p)(None, scores)
        expected = torch.softmax(scores, -1)[0].numpy()
        sampler = Sampler(temperature, top_p, seed, top_k=top_k, min_p=min_p)
        counts = Counter(int(sampler(logits)[0]) for _ in range(1500))
        assert set(counts) <= set(np.flatnonzero(expected).tolist())
        for token, share in enumerate(expected):
            assert abs(counts[token] / 1500 - share) < 0.06


def test_of_equal_logits_at_the_edge_all_stay() -> None:
    logits = np.array([[3.0, 1.0, 1.0, 0.0]], np.float32)
    sampler = Sampler(1.0, 1.0, 0, top_k=2)
    assert {int(sampler(logits)[0]) for _ in range(200)} == {0, 1, 2}


WRONG: dict[str, tuple[Any, ...]] = {
    "top_k": (-1, 1.5, True, "x", None),
    "min_p": (-0.1, 1.1, float("nan"), 1e308, "x", True),
    "repetition_penalty": (0, -1, 1e308, float("nan"), "x"),
    "presence_penalty": (-2.1, 2.1, 2**31, float("inf"), "x"),
    "frequency_penalty": (-2.1, 2.1, float("nan"), []),
    "logit_bias": ({-1: 0}, {VOCABULARY: 0}, {"1": 0}, {1: 101}, [1], {1: float("nan")}),
}


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in WRONG.items() for value in values]
)
def test_values_out_of_range_are_named(field: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"^{field} is"):
        Chooser(Options(**{field: value}), VOCABULARY)


@pytest.mark.parametrize("value", [-1, 21, 1.5, True, "x"])
def test_a_number_of_logprobs_out_of_range_is_named(value: Any) -> None:
    with pytest.raises(InputError, match=r"^logprobs is"):
        Options(logprobs=value)


@given(st.integers(0, 2**20), st.integers(0, VOCABULARY - 1), st.integers(0, 20))
def test_logprobs_are_those_of_the_models_own_distribution(seed: int, token: int, top: int) -> None:
    logits = drawn(seed)[0]
    exact = logits.astype(np.float64)
    exact -= np.log(np.exp(exact - exact.max()).sum()) + exact.max()
    logprobs = Logprobs(top, chr)
    logprobs.note(logits, token)
    (told,) = logprobs.fresh()
    assert logprobs.fresh() == ()
    assert (told.token_id, told.text) == (token, chr(token))
    assert told.logprob == pytest.approx(exact[token], abs=1e-5)
    best = np.argsort(-exact, kind="stable")[:top]
    assert [one.token_id for one in told.top] == best.tolist()
    assert [one.logprob for one in told.top] == pytest.approx(exact[best].tolist(), abs=1e-5)


def test_what_cannot_be_has_a_logprob_that_json_can_say() -> None:
    logits = np.array([0.0, -np.inf, -np.inf], np.float32)
    logprobs = Logprobs(2, str)
    logprobs.note(logits, 0)
    assert logprobs.taken[0].logprob == 0.0 and logprobs.taken[0].top[1].logprob == LEAST
    short = Logprobs(20, str)  # more than there are tokens
    short.note(logits, 0)
    assert len(short.taken[0].top) == 2


@pytest.mark.parametrize("stream", [False, True])
def test_answers_carry_them(loaded: Load, stream: bool) -> None:
    model = loaded("llama")
    options: dict[str, Any] = {"max_tokens": 6, "ignore_eos": True, "logprobs": 3}
    if stream:
        pieces = list(model.stream("what", **options))
        answer = pieces[-1].answer
        assert answer is not None
        assert tuple(one for piece in pieces for one in piece.logprobs) == answer.logprobs
    else:
        answer = model.generate("what", **options)
    assert answer.logprobs is not None and len(answer.logprobs) == 6
    assert tuple(one.token_id for one in answer.logprobs) == answer.token_ids
    assert "".join(one.text for one in answer.logprobs) == answer.text
    for one in answer.logprobs:  # greedy: the likeliest was taken
        assert one.top[0].token_id == one.token_id and len(one.top) == 3
    told = json.loads(json.dumps(answer.to_dict(), allow_nan=False))
    assert told["logprobs"][0]["top"][0]["token_id"] == answer.token_ids[0]
    assert model.generate("what", max_tokens=1).logprobs is None


def test_a_bias_forbids_and_forces_and_a_penalty_ends_repeating(loaded: Load) -> None:
    model = loaded("llama")
    ask: dict[str, Any] = {"max_tokens": 12, "ignore_eos": True}
    plain = model.generate("what", **ask).token_ids
    forbidden = model.generate("what", logit_bias={plain[0]: -100.0}, **ask).token_ids
    assert plain[0] not in forbidden
    forced = model.generate("what", logit_bias={77: 100.0}, **ask).token_ids
    assert set(forced) == {77}
    ask["max_tokens"] = 90  # after 50 of them the bias is used up
    ended = model.generate("what", logit_bias={77: 100.0}, frequency_penalty=2.0, **ask)
    assert ended.token_ids[0] == 77 and set(ended.token_ids) != {77}
    with pytest.raises(InputError, match="logit_bias is 256"):
        model.generate("what", logit_bias={256: 1.0})


def test_several_answers_are_each_penalised_by_their_own_tokens(loaded: Load) -> None:
    model = loaded("llama")
    ask: dict[str, Any] = {"max_tokens": 20, "ignore_eos": True, "temperature": 1.0, "seed": 4}
    ask |= {"presence_penalty": 2.0, "repetition_penalty": 1.3}
    many = model.generate("what", n=3, **ask)
    assert many.samples is not None
    assert many.samples[0].token_ids == model.generate("what", **ask).token_ids
    assert len({sample.token_ids for sample in many.samples}) == 3
