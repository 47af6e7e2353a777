"""How long answers will be, by what prompts say."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tightrope.point import OperatingPoint
from tightrope.quality_file import MeasuredPoint, Outcome
from tightrope.runtime.candidates import Candidate, candidate_of
from tightrope.runtime.lengths import LEAST_ANSWERS, Lengths

LIST, COLOUR, WHERE = (1, 7, 2), (1, 8, 2), (1, 8, 3)
"""Prompts: 7 is "list"; 8 and 2 next to each other ask for a colour."""


def candidate(lengths: dict[str, int], cap: int = 999) -> Candidate:
    return candidate_of(
        MeasuredPoint(
            point=OperatingPoint(thinking_tokens=cap),
            outcomes=tuple(
                Outcome(
                    question=question,
                    score=1.0,
                    text="",
                    completion_tokens=min(length, cap),
                    thinking_tokens=0,
                    finish_reason="stop",
                )
                for question, length in lengths.items()
            ),
        )
    )


def kinds(**many: int) -> tuple[dict[str, tuple[int, ...]], dict[str, int]]:
    """Prompts and lengths of so many questions of each kind: lists 40, colours 2, places 3."""
    prompts: dict[str, tuple[int, ...]] = {}
    lengths: dict[str, int] = {}
    for name, prompt, length in (("list", LIST, 40), ("colour", COLOUR, 2), ("where", WHERE, 3)):
        for number in range(many.get(name, 0)):
            prompts[f"{name}-{number}"], lengths[f"{name}-{number}"] = prompt, length
    return prompts, lengths


def test_a_prompt_counts_with_those_that_it_shares_a_token_or_a_pair_with() -> None:
    prompts, lengths = kinds(list=100, colour=100, where=100)
    found = Lengths([candidate(lengths), candidate(lengths, cap=20)], prompts)

    def most(prompt: tuple[int, ...]) -> list[int | None]:
        group = found.group(prompt)
        return [found.most(group, place) for place in (0, 1, 2)]

    assert most(LIST) == [40, 20, None]
    assert most(COLOUR) == [2, 2, None]
    assert most(WHERE) == [3, 3, None]
    assert most((0, 8, 2)) == [2, 2, None]  # the pair alone
    assert most((5, 6)) == most(()) == [40, 20, None]  # nothing that was asked
    assert most((8, 5)) == [3, 3, None]


def test_too_few_answers_tell_nothing_of_the_hundredth() -> None:
    for many, expected in ((LEAST_ANSWERS - 1, 40), (LEAST_ANSWERS, 2)):
        prompts, lengths = kinds(list=200, colour=many)
        found = Lengths([candidate(lengths)], prompts)
        assert found.most(found.group(COLOUR), 0) == expected


def test_one_of_a_candidate_that_was_asked_less_is_the_whole_task_s() -> None:
    prompts, lengths = kinds(list=200, colour=200)
    part = {name: length for name, length in lengths.items() if "list" in name}
    found = Lengths([candidate(lengths), candidate(part)], prompts)
    group = found.group(COLOUR)
    assert (found.most(group, 0), found.most(group, 1)) == (2, 40)


def test_without_prompts_or_outcomes_nothing_is_told_apart() -> None:
    _, lengths = kinds(list=100, colour=100)
    assumed = candidate_of(MeasuredPoint(point=OperatingPoint(), outcomes=()))
    found = Lengths([candidate(lengths), assumed], {})
    assert found.group(COLOUR) == 0
    assert (found.most(0, 0), found.most(0, 1)) == (40, None)
    assert Lengths([], {}).group(COLOUR) == 0


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_few_answers_are_longer_than_what_was_told(seed: int, words: int) -> None:
    """Lengths follow a word of the prompt, the others mean nothing; of new ones few are longer."""
    rng = np.random.default_rng(seed)

    def draw(count: int) -> tuple[dict[str, tuple[int, ...]], dict[str, int]]:
        rows = rng.integers(0, 10, (count, words + 1))
        prompts = {str(at): tuple(map(int, row)) for at, row in enumerate(rows)}
        return prompts, {
            name: int(rng.geometric(1 / (2 + 3 * prompt[0]))) for name, prompt in prompts.items()
        }

    prompts, lengths = draw(2000)
    found = Lengths([candidate(lengths)], prompts)
    new, answers = draw(2000)
    told = {name: found.most(found.group(prompt), 0) or 0 for name, prompt in new.items()}
    longer = np.mean([answers[name] > told[name] for name in new])
    assert longer < 0.05
    overall = candidate(lengths).most_tokens
    assert overall is not None
    assert np.mean(list(told.values())) <= overall


def test_the_order_of_the_questions_decides_nothing() -> None:
    prompts, lengths = kinds(list=120, colour=110, where=100)
    turned = dict(reversed(prompts.items()))
    one, other = (Lengths([candidate(lengths)], these) for these in (prompts, turned))
    for prompt in (LIST, COLOUR, WHERE):
        assert one.most(one.group(prompt), 0) == other.most(other.group(prompt), 0)
