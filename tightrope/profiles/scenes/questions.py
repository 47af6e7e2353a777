"""Questions about a scene, with answers that follow from its description.

Wording is fixed and every word stands alone, punctuation too. An answer is right if it equals the
reference word for word. Where a question can be balanced (yes and no, how many), its answers are
drawn first, so that a guess earns little.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from tightrope.profiles.scenes.scene import Scene, Thing
from tightrope.profiles.scenes.words import COLOURS, SHAPES, article


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question, its worked thought where it has one, and its answer."""

    type: str
    question: str
    answer: str
    thought: str | None = None
    """What stands between the thought's markers before the answer."""
    earlier: tuple[tuple[str, str], ...] = ()
    """Turns before this one: what was asked and what was answered."""
    about: tuple[int, ...] = ()
    """Places in `Scene.boxes` of what must be seen to answer."""

    @property
    def words(self) -> int:
        """Length of all that is said, markers included."""
        said = [self.question, self.answer, *(text for turn in self.earlier for text in turn)]
        markers = 2 + 3 * len(self.earlier) + 2 * (self.thought is not None)
        return sum(len(text.split()) for text in [*said, self.thought or ""]) + markers


Draw = Callable[[np.random.RandomState, Scene], Question | None]


def ask(rng: np.random.RandomState, scene: Scene, type: str) -> Question | None:
    """A question of a type, or None where the scene has no room for it."""
    return QUESTIONS[type](rng, scene)


def _colour(rng: np.random.RandomState, scene: Scene) -> Question | None:
    return _attribute(rng, scene, "colour")


def _shape(rng: np.random.RandomState, scene: Scene) -> Question | None:
    return _attribute(rng, scene, "shape")


def _attribute(rng: np.random.RandomState, scene: Scene, attribute: str) -> Question | None:
    found = _unique(rng, scene, without=attribute)
    if found is None:
        return None
    index, name = found
    return Question(
        type=attribute,
        question=f"what {attribute} is the {name} ?",
        answer=getattr(scene.things[index], attribute),
        about=(index,),
    )


def _existence(rng: np.random.RandomState, scene: Scene) -> Question | None:
    """Half are there. Of those that are not, most share each word with something that is."""
    there = {(thing.colour, thing.shape) for thing in scene.objects}
    if not there:
        return None
    if rng.random_sample() < 0.5:
        colour, shape = sorted(there)[rng.randint(len(there))]
    else:
        near = [
            (colour, shape)
            for colour in sorted({colour for colour, _ in there})
            for shape in sorted({shape for _, shape in there})
            if (colour, shape) not in there
        ]
        far = [
            (colour, shape)
            for colour in COLOURS
            for shape in SHAPES
            if (colour, shape) not in there
        ]
        pool = near if near and rng.random_sample() < 0.8 else far
        colour, shape = pool[rng.randint(len(pool))]
    matching = _which(scene, lambda thing: (thing.colour, thing.shape) == (colour, shape))
    related = _which(scene, lambda thing: colour == thing.colour or shape == thing.shape)
    return Question(
        type="existence",
        question=f"is there {article(colour)} {colour} {shape} ?",
        answer="yes" if matching else "no",
        about=matching or related or _objects(scene),
    )


def _count(rng: np.random.RandomState, scene: Scene) -> Question | None:
    """How many of a kind; each number that the scene offers is equally likely."""
    if not scene.objects:
        return None
    by_number: dict[int, list[tuple[str, tuple[int, ...]]]] = {}
    for name, indices in _kinds(scene):
        by_number.setdefault(len(indices), []).append((name, indices))
    # Nothing of the kind is the easiest answer and nearly always on offer; boards are for counting.
    more = 1.0 if scene.board else 0.25
    weights = {number: 0.4 if number == 0 else 1.0 + more * number for number in by_number}
    number = _pick_weighted(rng, weights)
    name, indices = by_number[number][rng.randint(len(by_number[number]))]
    return Question(
        type="count",
        question=f"how many {name} are {'on the board' if scene.board else 'there'} ?",
        thought=_listed(scene, indices),
        answer=str(number),
        about=indices or _objects(scene),
    )


def _comparison(rng: np.random.RandomState, scene: Scene) -> Question | None:
    kinds = [(name, indices) for name, indices in _kinds(scene) if indices]
    pairs = [
        (one, other)
        for one, other in combinations(kinds, 2)
        if len(one[0].split()) == len(other[0].split()) and abs(len(one[1]) - len(other[1])) <= 2
    ]
    yes = rng.random_sample() < 0.5
    unequal = [pair for pair in pairs if len(pair[0][1]) != len(pair[1][1])]
    if not unequal:  # only "no" could be the answer, and that would give it away
        return None
    fitting = unequal if yes else pairs
    one, other = fitting[rng.randint(len(fitting))]
    if (len(one[1]) > len(other[1])) != yes:
        one, other = other, one
    if (len(one[1]) > len(other[1])) != yes:
        return None
    return Question(
        type="comparison",
        question=f"are there more {one[0]} than {other[0]}{_on_board(scene)} ?",
        thought=f"{_listed(scene, one[1])} ; {_listed(scene, other[1])}",
        answer="yes" if yes else "no",
        about=tuple(sorted({*one[1], *other[1]})),
    )


def _position(rng: np.random.RandomState, scene: Scene) -> Question | None:
    """Where something is, or what is somewhere."""
    if not scene.objects:
        return None
    if rng.random_sample() < 0.5:
        return where(rng, scene)
    objects = _objects(scene)
    index = objects[rng.randint(len(objects))]
    place = scene.place(index)
    return Question(
        type="position",
        question=f"what is on {place} ?" if scene.board else f"what is at the {place} ?",
        answer=scene.things[index].name,
        about=(index,),
    )


def where(rng: np.random.RandomState, scene: Scene) -> Question | None:
    """Where something is."""
    found = _unique(rng, scene)
    if found is None:
        return None
    index, name = found
    return Question(
        type="position",
        question=f"where is the {name}{_on_board(scene)} ?",
        answer=scene.place(index),
        about=(index,),
    )


def stripes(rng: np.random.RandomState, scene: Scene) -> Question | None:
    """Whether something has stripes: they are finer than anything else of it."""
    found = _unique(rng, scene, without="texture")
    if found is None:
        return None
    index, name = found
    return Question(
        type="stripes",
        question=f"is the {name} plain or striped ?",
        answer="striped" if scene.things[index].striped else "plain",
        about=(index,),
    )


def _relation(rng: np.random.RandomState, scene: Scene) -> Question | None:
    """Left of, right of, above, below: two things that differ by a whole column or row."""
    first, second = _unique(rng, scene), _unique(rng, scene)
    if first is None or second is None or first[0] == second[0]:
        return None
    one, other = scene.things[first[0]], scene.things[second[0]]
    options = []
    if one.cell % 3 != other.cell % 3:
        options += [("left of", one.cell % 3 < other.cell % 3)]
        options += [("right of", one.cell % 3 > other.cell % 3)]
    if one.cell // 3 != other.cell // 3:
        options += [("above", one.cell // 3 < other.cell // 3)]
        options += [("below", one.cell // 3 > other.cell // 3)]
    if not options:
        return None
    relation, holds = options[rng.randint(len(options))]
    return Question(
        type="relation",
        question=f"is the {first[1]} {relation} the {second[1]} ?",
        answer="yes" if holds else "no",
        about=(first[0], second[0]),
    )


def _digit(rng: np.random.RandomState, scene: Scene) -> Question | None:
    plates = _which(scene, lambda thing: thing.kind == "plate")
    if not plates:
        return None
    index = plates[rng.randint(len(plates))]
    plate = scene.things[index]
    where = "on the plate" if len(plates) == 1 else f"at the {plate.place}"
    return Question(
        type="digit", question=f"which digit is {where} ?", answer=str(plate.digit), about=(index,)
    )


def _word(rng: np.random.RandomState, scene: Scene) -> Question | None:
    for index in _which(scene, lambda thing: thing.kind == "sign"):
        word = scene.things[index].word
        return Question(
            type="word", question="which word is on the sign ?", answer=word, about=(index,)
        )
    return None


def _list(rng: np.random.RandomState, scene: Scene) -> Question | None:
    """Everything in reading order: five tokens a thing, from 20 on."""
    if len(scene.things) < 4:
        return None
    every = tuple(range(len(scene.things)))
    return Question(
        type="list",
        question="list the board ." if scene.board else "list everything .",
        answer=" , ".join(f"{scene.place(at)} {scene.things[at].name}" for at in every) + " .",
        about=every,
    )


def _followup(rng: np.random.RandomState, scene: Scene) -> Question | None:
    """A second turn that only makes sense after the first."""
    asked = (_colour, _shape, _position)[rng.randint(3)](rng, scene)
    if asked is None:
        return None
    thing = scene.things[asked.about[0]]
    options = []
    if asked.type != "colour" and thing.colour not in f"{asked.question} {asked.answer}":
        options.append(("what colour is it ?", thing.colour))
    if asked.type != "shape" and thing.shape not in f"{asked.question} {asked.answer}":
        options.append(("what shape is it ?", thing.shape))
    if thing.place not in f"{asked.question} {asked.answer}":
        options.append(("where is it ?", thing.place))
    if not options:
        return None
    question, answer = options[rng.randint(len(options))]
    return Question(
        type="followup",
        question=question,
        answer=answer,
        earlier=((asked.question, asked.answer),),
        about=asked.about,
    )


QUESTIONS: dict[str, Draw] = {
    "colour": _colour,
    "shape": _shape,
    "existence": _existence,
    "count": _count,
    "comparison": _comparison,
    "position": _position,
    "relation": _relation,
    "digit": _digit,
    "word": _word,
    "list": _list,
    "followup": _followup,
}
"""Every type of question about a picture."""


def _on_board(scene: Scene) -> str:
    return " on the board" if scene.board else ""


def _which(scene: Scene, test: Callable[[Thing], bool]) -> tuple[int, ...]:
    return tuple(index for index, thing in enumerate(scene.things) if test(thing))


def _objects(scene: Scene) -> tuple[int, ...]:
    return _which(scene, lambda thing: thing.kind == "object")


def _kinds(scene: Scene) -> list[tuple[str, tuple[int, ...]]]:
    """What can be counted: each shape and colour, and stripes, with the things of that kind."""
    found: dict[str, list[int]] = {plural: [] for plural in SHAPES.values()}
    found |= {f"{name} objects": [] for name in (*COLOURS, "striped")}
    for index, thing in enumerate(scene.things):
        if thing.kind == "object":
            found[SHAPES[thing.shape]].append(index)
            found[f"{thing.colour} objects"].append(index)
            if thing.striped:
                found["striped objects"].append(index)
    return [(name, tuple(indices)) for name, indices in found.items()]


def _listed(scene: Scene, indices: tuple[int, ...]) -> str:
    """The thought of a count: numbered places in reading order."""
    if not indices:
        return "none"
    return " , ".join(f"{number} {scene.place(index)}" for number, index in enumerate(indices, 1))


def _unique(rng: np.random.RandomState, scene: Scene, without: str = "") -> tuple[int, str] | None:
    """An object and words that fit it alone, never naming the attribute `without`.

    Sizes are named only in hard scenes: there a diameter of 38 is large, elsewhere it is small.
    """
    objects = _objects(scene)
    for index in (objects[at] for at in rng.permutation(len(objects))):
        names = []
        for name in _names(scene.things[index], without, sizes=scene.level == "hard"):
            fitting = [other for other in objects if _fits(scene.things[other], name)]
            if fitting == [index]:
                names.append(name)
        if names:
            shortest = [name for name in names if len(name) == min(map(len, names))]
            pool = shortest if rng.random_sample() < 0.8 else names
            return index, _spoken(pool[rng.randint(len(pool))])
    return None


Name = tuple[tuple[str, str], ...]


def _attributes(thing: Thing) -> dict[str, str]:
    return {
        "colour": thing.colour,
        "shape": thing.shape,
        "texture": "striped" if thing.striped else "plain",
        "size": "large" if thing.large else "small",
    }


def _names(thing: Thing, without: str, sizes: bool) -> list[Name]:
    left_out = (without,) if sizes else (without, "size")
    attributes = [pair for pair in _attributes(thing).items() if pair[0] not in left_out]
    return [name for length in (1, 2, 3) for name in combinations(attributes, length)]


def _fits(thing: Thing, name: Name) -> bool:
    return set(name) <= set(_attributes(thing).items())


def _spoken(name: Name) -> str:
    """Size, texture, colour, then the shape or `object`."""
    said = dict(name)
    words = [said[attribute] for attribute in ("size", "texture", "colour") if attribute in said]
    return " ".join([*words, said.get("shape", "object")])


def _pick_weighted(rng: np.random.RandomState, weights: dict[int, float]) -> int:
    numbers = sorted(weights)
    shares = np.cumsum([weights[number] for number in numbers])
    return numbers[int(np.searchsorted(shares, rng.random_sample() * shares[-1], side="right"))]
