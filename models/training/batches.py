"""Training batches: pictures, and several questions about each in one packed sequence.

A sequence is [<s> USER: | visual tokens | question | question | ...]. A mask lets each question see
the prefix and itself, and its position ids go on from the prefix, so that each question is exactly
a prompt of its own, at a fraction of the cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Many
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from models.training.architecture import NAMES_LAYER, PROMPT_LAYER
from models.training.labels import ATTRIBUTES, patch_labels
from models.training.subjects import SEVERAL, SUBJECTS, Subject, trained_level
from models.training.vocabulary import (
    BOS,
    EOS,
    IDS,
    IMAGE,
    SYSTEMS,
    encode,
)
from tightrope.arrays import Array, Doubles, Flags, Floats, Indices, Pixels
from tightrope.profiles.scenes.draw import draw
from tightrope.profiles.scenes.grounds import GROUND_TYPES
from tightrope.profiles.scenes.questions import QUESTIONS, Question
from tightrope.profiles.scenes.recall import asking, story
from tightrope.profiles.scenes.sample import scene_rng
from tightrope.profiles.scenes.scene import Level, Scene
from tightrope.profiles.scenes.words import COLOURS, SHAPES, SIGN_WORDS
from tightrope.runtime.thought import BEGIN, END

TYPES = (*QUESTIONS, *GROUND_TYPES, "recall")
EMPTY_THOUGHT = {"count": 0.15, "comparison": 0.15}
"""How often a question with a thought is asked without it; others: see _OTHERS."""
_OTHERS = 0.1
_FACTS = 6
"""Of a text that are asked about."""
_RELATIONS = ("left", "right", "above", "below")


@dataclass(slots=True)
class Sequence:
    """One packed sequence while it grows."""

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    block: list[int] = field(default_factory=list)
    target: list[int] = field(default_factory=list)
    """What the token predicts, or -1."""
    weight: list[float] = field(default_factory=list)
    question: list[int] = field(default_factory=list)
    """Which question the prediction belongs to, or -1."""
    types: list[int] = field(default_factory=list)
    named: list[tuple[int, int, tuple[int, ...]]] = field(default_factory=list)
    """Places at which a question knows what it is about, the layer that looks for it, and which
    things it is; of a text, which places."""

    def add(self, ids: list[int], start: int, block: int) -> int:
        self.ids += ids
        self.positions += range(start, start + len(ids))
        self.block += [block] * len(ids)
        self.target += [-1] * len(ids)
        self.weight += [0.0] * len(ids)
        self.question += [-1] * len(ids)
        return start + len(ids)

    def ask(self, question: Question, start: int, block: int, empty_thought: bool) -> None:
        """A question, its earlier turns as context, and its answer as targets."""
        said: list[int] = []
        for user, assistant in question.earlier:
            said += encode(f"{user} ASSISTANT: {assistant} {EOS} USER:")
        said += encode(f"{question.question} ASSISTANT:")
        if empty_thought:
            said += [IDS[BEGIN], IDS[END]]
        thought: list[int] = []
        if question.thought is not None and not empty_thought:
            thought = [IDS[BEGIN], *encode(question.thought), IDS[END]]
        answer = [*encode(question.answer), IDS[EOS]]
        at = len(self.ids) + len(said) - 1
        self.add(said + thought + answer[:-1], start, block)
        if question.type == "relation":
            begin = at - len(said) + 1
            for end, about in _names(question):
                self.named.append((begin + end, NAMES_LAYER, about))
        else:
            self.named.append((at, PROMPT_LAYER, question.about))
        targets = thought + answer
        share = 0.5 if question.type == "list" else 1.0
        weights = [0.5] * len(thought) + [share] * (len(answer) - 1) + [0.1]
        self.target[at : at + len(targets)] = targets
        self.weight[at : at + len(targets)] = weights
        self.question[at : at + len(targets)] = [len(self.types)] * len(targets)
        self.types.append(TYPES.index(question.type))


@dataclass(slots=True)
class Batch:
    """Arrays of one step.

    P pictures, B sequences, N patches, A attributes, T tokens (padded), V visual tokens in all.
    """

    pixels: Pixels | None
    """[P,px,px,3]; None where nothing is drawn."""
    values: Indices
    """[P,N,A] what each patch shows."""
    owner: Indices
    """[P,N] which of the boxes of its scene, or -1."""
    present: Floats
    """[P,K] what the whole picture holds: targets of CLS."""
    ids: Indices
    positions: Indices
    block: Indices
    target: Indices
    weight: Floats
    question: Indices
    """[B,T] each; padding has block -1."""
    visual: Indices
    """[V,4]: picture, patch, its sequence, its place there."""
    named: Indices
    """[G,3]: sequence and place of a token that looks for something, and the layer"""
    ground: Flags
    """[G,T]: where in the sequence the patches are that show it, or a text says it"""
    readable: Flags
    """[G,T]: where it is looked for: the picture, or the text so far"""
    types: list[list[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Diet:
    """What a stage is fed with."""

    pictures: int
    """In a step, over all processes; a few more or less where they are shown together."""
    text: int
    """Tokens of questions and answers about each picture; 0: it is only looked at."""
    levels: dict[Level, float]
    pixels: dict[int, float]
    """Sides and their shares; one side per step."""
    drawn: bool = True
    all_patches: float = 1.0
    """Share of steps in which the decoder sees every patch; else things and a few others."""
    texts: float = 0.1
    """Share of steps that are texts without a picture."""
    text_words: int = 150
    kinds: dict[str, float] = field(default_factory=lambda: {"scenes": 1.0})
    """Shares of SUBJECTS."""
    weights: dict[str, float] = field(default_factory=dict)
    """Types that are asked more or less often than the rest."""

    @property
    def groups(self) -> int:
        """Sequences of a step that shows several pictures in each."""
        return self.pictures // 4


def make_batch(diet: Diet, seed: int, step: int, rank: int, world: int) -> Batch:
    """The share of process `rank` in a step; the whole step is the same for every `world`."""
    rng = np.random.RandomState([7, seed, step])
    if rng.random_sample() < diet.texts:
        return _texts(diet, seed, step, rank, world)
    sides = list(diet.pixels)
    pixels = sides[int(rng.choice(len(sides), p=_shares(diet.pixels)))]
    whole = rng.random_sample() < diet.all_patches
    kinds = dict(diet.kinds)
    together = rng.random_sample() * sum(kinds.values()) < kinds.pop(SEVERAL, 0.0)
    if together:
        kinds = {SEVERAL: 1.0}
    sequences = diet.groups if together else diet.pictures
    own = [step * diet.pictures + at for at in range(rank, sequences, world)]
    return _pictures(diet, kinds, seed, own, pixels, whole)


def _shares(weights: Mapping[Any, float]) -> Doubles:
    values = np.array(list(weights.values()), np.float64)
    shares: Doubles = values / values.sum()
    return shares


@dataclass(slots=True)
class Seen:
    """The pictures of one sequence, their patches counted through."""

    values: Indices
    """[p,N,A]"""
    owner: Indices
    """[p,N] which of the boxes of its own scene, or -1."""
    present: Floats
    """[p,K]"""
    asked: Indices
    """[p*N] which of the boxes of all scenes, or -1."""


def seen(scenes: Many[Scene], pixels: int) -> Seen:
    """What pictures of `pixels` show, patch by patch."""
    labels = [patch_labels(scene, pixels) for scene in scenes]
    owner = np.stack([own for _, own in labels])
    before = np.cumsum([0, *(len(scene.boxes) for scene in scenes)])[:-1]
    return Seen(
        values=np.stack([values for values, _ in labels]),
        owner=owner,
        present=np.stack([_present(scene) for scene in scenes]),
        asked=np.where(owner >= 0, owner + before[:, None], -1).reshape(-1),
    )


def pack(
    pictures: Pixels,
    shown: Seen,
    questions: list[Question],
    chosen: Indices,
    empty_thought: bool,
) -> Batch:
    """Questions about pictures [p,px,px,3] of which the decoder sees the patches `chosen`."""
    sequence = Sequence()
    start = sequence.add([IDS[BOS], IDS["USER:"]], 0, 0)
    sequence.add([IDS[IMAGE]] * len(chosen), start, 0)
    sequence.positions[start:] = [start + int(at) for at in chosen]
    for block, question in enumerate(questions, 1):
        sequence.ask(question, start + len(shown.asked), block, empty_thought)
    return _batch([sequence], [pictures], [shown], [(start, chosen)])


def _pictures(
    diet: Diet, kinds: dict[str, float], seed: int, indices: list[int], pixels: int, whole: bool
) -> Batch:
    sequences, drawn, shown, places = [], [], [], []
    levels, names = list(diet.levels), list(kinds)
    for index in indices:
        rng = scene_rng("train", seed, index)
        level = levels[int(rng.choice(len(levels), p=_shares(diet.levels)))]
        kind = names[int(rng.choice(len(names), p=_shares(kinds)))]
        subject = SUBJECTS[kind](rng, "train", trained_level(rng, kind, level, pixels))
        questions = _questions(rng, subject, diet)
        found = seen(subject.scenes, pixels)
        if diet.drawn:
            drawn.append(np.stack([draw(scene, "train", pixels) for scene in subject.scenes]))
        chosen = _chosen(rng, found.asked, whole)
        sequence, first = _sequence(rng, questions, chosen, len(found.asked))
        sequences.append(sequence)
        shown.append(found)
        places.append((first, chosen))
    return _batch(sequences, drawn, shown, places)


def _batch(
    sequences: list[Sequence],
    drawn: list[Pixels],
    shown: list[Seen],
    places: list[tuple[int, Indices]],
) -> Batch:
    """`places`: for each sequence where its visual tokens start, and which patches they are."""
    visual, before = [], 0
    for row, (found, (first, chosen)) in enumerate(zip(shown, places, strict=True)):
        count, patches = found.owner.shape
        visual += [
            (before + at // patches, at % patches, row, first + place)
            for place, at in enumerate(map(int, chosen))
        ]
        before += count
    return _padded(
        sequences,
        pixels=np.concatenate(drawn) if drawn else None,
        values=np.concatenate([found.values for found in shown]),
        owner=np.concatenate([found.owner for found in shown]),
        present=np.concatenate([found.present for found in shown]),
        visual=np.array(visual, np.int64),
        shown=[
            (first, found.asked[chosen])
            for found, (first, chosen) in zip(shown, places, strict=True)
        ],
    )


def _texts(diet: Diet, seed: int, step: int, rank: int, world: int) -> Batch:
    """Texts, each with questions about several of its facts."""
    sequences = []
    for at in range(rank, diet.pictures, world):
        rng = np.random.RandomState([8, seed, step, at])
        text, facts = story(rng, 20 + int(rng.randint(diet.text_words)))
        sequence = Sequence()
        sequence.add([IDS[BOS]], 0, 0)
        # Texts start anywhere, so that long ones meet no position for the first time.
        start = sequence.add([IDS["USER:"]], 1 + int(rng.randint(600)) * int(rng.randint(2)), 0)
        begin, ids = len(sequence.ids), encode(text)
        start = sequence.add(ids, start, 0)
        for block, (key, digit) in enumerate(facts[:_FACTS], 1):
            place = begin + _fact(ids, IDS[key])
            # A digit has to know whose it is before a question can find it.
            sequence.named.append((place, NAMES_LAYER, (place - 2,)))
            asked = Question(type="recall", question=asking(key), answer=digit, about=(place,))
            sequence.ask(asked, start, block, bool(rng.random_sample() < _OTHERS))
        sequences.append(sequence)
    count = len(sequences)
    return _padded(
        sequences,
        pixels=None,
        values=np.zeros((count, 0, len(ATTRIBUTES)), np.int64),
        owner=np.zeros((count, 0), np.int64),
        present=np.zeros((count, 0), np.float32),
        visual=np.zeros((0, 4), np.int64),
        shown=[],
    )


def _fact(ids: list[int], key: int) -> int:
    """The place of the digit in `the <key> has <digit> .`"""
    pair = (key, IDS["has"])
    return next(at + 2 for at, found in enumerate(pairwise(ids)) if found == pair)


def _names(question: Question) -> list[tuple[int, tuple[int, ...]]]:
    """Where the two names of a relation end among its words, and what each stands for.

    A prompt's last token would mix them up.
    """
    words = question.question.split()
    first = next(at for at, word in enumerate(words) if word in _RELATIONS) - 1
    return [(first, question.about[:1]), (len(words) - 2, question.about[1:])]


def _questions(rng: np.random.RandomState, subject: Subject, diet: Diet) -> list[Question]:
    names = subject.types
    shares = _shares({name: diet.weights.get(name, 1.0) for name in names})
    found: list[Question] = []
    left = diet.text
    while left >= 12:  # the shortest question with its answer
        question = subject.ask(rng, names[int(rng.choice(len(names), p=shares))])
        if question is None or question in found:
            left -= 1
        elif question.words <= left:
            found.append(question)
            left -= question.words
        else:
            left -= 6
    return found


def _chosen(rng: np.random.RandomState, owner: Indices, whole: bool) -> Indices:
    """Patches that become visual tokens: all, or those of things and a few of the rest."""
    if whole:
        return np.arange(len(owner))
    background = np.flatnonzero(owner < 0)
    few = rng.permutation(background)[: 12 + rng.randint(len(owner) // 8)]
    return np.sort(np.concatenate([np.flatnonzero(owner >= 0), few]))


def _sequence(
    rng: np.random.RandomState, questions: list[Question], chosen: Indices, patches: int
) -> tuple[Sequence, int]:
    """The packed sequence, and where its visual tokens start.

    Positions of what is left of a picture are the old ones or closed up, by the toss of a coin.
    """
    sequence = Sequence()
    opening = [IDS[BOS]]
    if rng.random_sample() < 0.15:
        opening += encode(f"SYSTEM: {SYSTEMS[rng.randint(len(SYSTEMS))]}")
    start = sequence.add([*opening, IDS["USER:"]], 0, 0)
    first = len(sequence.ids)
    closed_up = rng.random_sample() < 0.5
    after = sequence.add([IDS[IMAGE]] * len(chosen), start, 0)
    if not closed_up:
        sequence.positions[first:] = [start + int(at) for at in chosen]
        after = start + patches
    for block, question in enumerate(questions, 1):
        empty = rng.random_sample() < EMPTY_THOUGHT.get(question.type, _OTHERS)
        sequence.ask(question, after, block, bool(empty))
    return sequence, first


def _present(scene: Scene) -> Floats:
    """How many of each shape and colour there are (capped at 4), then digits and words: [44]."""
    things = scene.things
    counts = [sum(t.shape == s for t in things) for s in SHAPES]
    counts += [sum(t.colour == c for t in things) for c in COLOURS]
    flags = [any(t.digit == d for t in things) for d in range(10)]
    flags += [any(t.word == w for t in things) for w in SIGN_WORDS]
    return np.array([*(min(count, 4) / 4 for count in counts), *flags], np.float32)


NUM_PRESENT = len(SHAPES) + len(COLOURS) + 10 + len(SIGN_WORDS)


def _padded(sequences: list[Sequence], shown: list[tuple[int, Indices]], **arrays: Any) -> Batch:
    """shown: for each sequence where its visual tokens start, and what each of them shows."""
    longest = max(len(sequence.ids) for sequence in sequences)
    named, ground, readable = [], [], []
    for row, sequence in enumerate(sequences):
        for place, layer, about in sequence.named:
            where, there = np.zeros(longest, np.bool_), np.zeros(longest, np.bool_)
            if shown:
                first, owner = shown[row]
                where[first : first + len(owner)] = True
                there[first : first + len(owner)] = np.isin(owner, about)
            else:
                where[:place] = True
                there[list(about)] = True
            if there.any():
                named.append((row, place, layer))
                ground.append(there)
                readable.append(where)

    def stack(name: str, fill: float, dtype: type) -> Array:
        table: Array = np.full((len(sequences), longest), fill, dtype)
        for row, sequence in zip(table, sequences, strict=True):
            found = getattr(sequence, name)
            row[: len(found)] = found
        return table

    return Batch(
        ids=stack("ids", 0, np.int64),
        positions=stack("positions", 0, np.int64),
        block=stack("block", -1, np.int64),
        target=stack("target", -1, np.int64),
        weight=stack("weight", 0.0, np.float32),
        question=stack("question", -1, np.int64),
        types=[sequence.types for sequence in sequences],
        named=np.array(named, np.int64).reshape(-1, 3),
        ground=np.array(ground, np.bool_).reshape(-1, longest),
        readable=np.array(readable, np.bool_).reshape(-1, longest),
        **arrays,
    )
