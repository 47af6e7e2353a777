"""Every answer, found again from the question's words alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightrope.profiles.scenes.questions import QUESTIONS, Question, ask
from tightrope.profiles.scenes.sample import LEVELS, SPLITS, sample_scene, scene_rng
from tightrope.profiles.scenes.scene import SIDE, Level, Scene, Split
from tightrope.profiles.scenes.words import COLUMNS, ROWS

Answer = Callable[[Question, Scene, int], str]

PLACE = rf"(?:{'|'.join(ROWS)}) (?:{'|'.join(COLUMNS)})"


def questions(number: int, type: str) -> Iterator[tuple[Scene, Question]]:
    """That many questions of a type, in scenes of the levels of a task."""
    levels: list[Level] = ["easy", "medium", "medium", "hard", "hard", "hard", "hard"]
    index = 0
    while number:
        level = levels[index % len(levels)]
        scene = sample_scene(scene_rng("test", 11, index), "test", level)
        question = ask(np.random.RandomState([12, index]), scene, type)
        index += 1
        if question is not None:
            number -= 1
            yield scene, question


def counted(text: str) -> list[str]:
    """The places of a thought, whose numbers go up by one."""
    if text == "none":
        return []
    places = []
    for number, part in enumerate(text.split(" , "), 1):
        found = re.fullmatch(rf"{number} ({PLACE})", part)
        assert found is not None, part
        places.append(found[1])
    return places


@given(
    split=st.sampled_from(SPLITS),
    seed=st.integers(0, 2**32 - 1),
    level=st.sampled_from(LEVELS),
    type=st.sampled_from(list(QUESTIONS)),
)
@settings(max_examples=150, deadline=None)
def test_every_answer_is_the_one_that_the_words_ask_for(
    answer_of: Answer, split: Split, seed: int, level: Level, type: str
) -> None:
    scene = sample_scene(scene_rng(split, seed, 0), split, level)
    question = ask(np.random.RandomState([12, seed]), scene, type)
    if question is not None:
        assert question.type == type
        assert question.answer == answer_of(question, scene, SIDE)


@pytest.mark.parametrize("type", QUESTIONS)
def test_every_type_comes_up_and_all_its_answers_are_right(answer_of: Answer, type: str) -> None:
    for scene, question in questions(300, type):
        assert question.answer == answer_of(question, scene, SIDE)


@pytest.mark.parametrize("type", ["existence", "relation", "comparison"])
def test_yes_and_no_are_as_likely(type: str) -> None:
    answers = Counter(question.answer for _, question in questions(2000, type))
    assert set(answers) == {"yes", "no"}
    assert 0.45 < answers["yes"] / 2000 < 0.55


def test_thoughts_count_what_the_answer_says() -> None:
    for _, question in questions(300, "count"):
        assert question.thought is not None
        assert len(counted(question.thought)) == int(question.answer)
    for _, question in questions(300, "comparison"):
        assert question.thought is not None
        one, other = (counted(part) for part in question.thought.split(" ; "))
        assert (len(one) > len(other)) == (question.answer == "yes")


def test_thoughts_name_the_places_of_what_is_asked_about() -> None:
    for type in ("count", "comparison"):
        for scene, question in questions(200, type):
            assert question.thought is not None
            said = {place for part in question.thought.split(" ; ") for place in counted(part)}
            if said:
                assert said == {scene.things[index].place for index in question.about}


def test_a_list_is_20_to_60_words_long() -> None:
    lengths = {len(question.answer.split()) for _, question in questions(500, "list")}
    assert min(lengths) == 20 and max(lengths) <= 60


@pytest.mark.parametrize("type", QUESTIONS)
def test_what_an_answer_needs_is_named(type: str) -> None:
    """One thing for most types; two for a relation; what a count counts, every object for 0."""
    for scene, question in questions(100, type):
        assert list(question.about) == sorted(set(question.about)) or type == "relation"
        assert all(0 <= index < len(scene.things) for index in question.about)
        if type in ("colour", "shape", "position", "digit", "word", "followup"):
            assert len(question.about) == 1
        elif type == "relation":
            assert len(set(question.about)) == 2
        elif type == "count":
            assert len(question.about) == (int(question.answer) or len(scene.objects))
        elif type == "existence":
            assert question.about
        elif type == "list":
            assert len(question.about) == len(scene.things)


def test_words_counts_what_is_said_with_markers() -> None:
    question = Question(
        type="x", question="a b ?", answer="c", thought="d e", earlier=(("f ?", "g"),)
    )
    assert question.words == 3 + 1 + 2 + 3 + 2 + 3 + 2


def test_a_second_turn_asks_about_something_that_the_first_left_open() -> None:
    for _, question in questions(300, "followup"):
        ((asked, said),) = question.earlier
        assert question.question.split()[-2] == "it"
        assert question.answer not in f"{asked} {said}"
