"""An answerer of its own: it reads a question as text and looks things up in the scene.

It knows nothing of how questions are made, judges places by coordinates and sizes by units.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tightrope.profiles.scenes.questions import Question
from tightrope.profiles.scenes.scene import Ground, Scene, Thing

Answer = Callable[[Question, Scene, int], str]

ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "centre", "right")
COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "cyan", "white")
PLURALS = {
    "circles": "circle",
    "squares": "square",
    "triangles": "triangle",
    "stars": "star",
    "crosses": "cross",
    "rings": "ring",
}


@pytest.fixture(scope="session")
def answer_of() -> Answer:
    """`answer_of(question, scene, side)`: the one right answer; fails where there is not one."""
    return _answer


def _answer(question: Question, scene: Scene, side: int) -> str:
    subject: list[Thing] = []
    for text, said in question.earlier:
        subject = _named_in(text, scene, side)
        assert said == _to_text(text, scene, side, subject)
    return _to_text(question.question, scene, side, subject)


def _to_text(text: str, scene: Scene, side: int, it: list[Thing]) -> str:
    def one(name: str) -> Thing:
        (found,) = it if name == "it" else _referents(name, scene)
        return found

    if found := re.fullmatch(r"where is the (.+) on the board \?", text):
        return _square(one(found[1]), side)
    if found := re.fullmatch(r"what colour is (?:the (.+)|(it)) \?", text):
        return one(found[1] or found[2]).colour
    if found := re.fullmatch(r"what shape is (?:the (.+)|(it)) \?", text):
        return one(found[1] or found[2]).shape
    if found := re.fullmatch(r"where is (?:the (.+)|(it)) \?", text):
        return _place(one(found[1] or found[2]), side)
    if found := re.fullmatch(r"what is on ([a-d] [1-4]) \?", text):
        (thing,) = (thing for thing in scene.things if _square(thing, side) == found[1])
        return _described(thing)
    if found := re.fullmatch(r"is the (.+) plain or striped \?", text):
        return "striped" if one(found[1]).striped else "plain"
    if found := re.fullmatch(r"what texture is at the (\w+ \w+) \?", text):
        return _ground(found[1], scene, side).texture
    if found := re.fullmatch(r"is it bright or dark at the (\w+ \w+) \?", text):
        return _ground(found[1], scene, side).light
    if text == "where is it empty ?":
        every = {f"{row} {column}" for row in ROWS for column in COLUMNS}
        (place,) = every - {_place(thing, side) for thing in scene.things}
        return place
    if found := re.fullmatch(r"what is at the (\w+ \w+) \?", text):
        (thing,) = (thing for thing in scene.things if _place(thing, side) == found[1])
        return _described(thing)
    if found := re.fullmatch(r"is there (an?) (\w+) (\w+) \?", text):
        assert (found[1] == "an") == (found[2][0] in "aeiou")
        matching = _referents(f"{found[2]} {found[3]}", scene)
        return "yes" if matching else "no"
    if found := re.fullmatch(r"how many (.+) are (?:there|on the board) \?", text):
        return str(len(_of_kind(found[1], scene)))
    if found := re.fullmatch(r"are there more (.+) than (.+?)(?: on the board)? \?", text):
        one_kind, other_kind = (_of_kind(found[at], scene) for at in (1, 2))
        return "yes" if len(one_kind) > len(other_kind) else "no"
    if found := re.fullmatch(r"is the (.+) (left of|right of|above|below) the (.+) \?", text):
        first, second = one(found[1]), one(found[3])
        across = found[2].endswith("of")
        ends = (first.x, second.x) if across else (first.y, second.y)
        # Told apart by a whole column or row, not by a few pixels.
        assert ends[0] * 3 // side != ends[1] * 3 // side
        before = found[2] in ("left of", "above")
        return "yes" if (ends[0] < ends[1]) == before else "no"
    if found := re.fullmatch(r"which digit is (?:on the plate|at the (\w+ \w+)) \?", text):
        plates = [thing for thing in scene.things if thing.kind == "plate"]
        (plate,) = (plate for plate in plates if found[1] in (None, _place(plate, side)))
        return str(plate.digit)
    if text == "which word is on the sign ?":
        (sign,) = (thing for thing in scene.things if thing.kind == "sign")
        return sign.word
    if text == "list everything .":
        order = sorted(scene.things, key=lambda thing: (thing.y * 3 // side, thing.x * 3 // side))
        parts = (f"{_place(thing, side)} {_described(thing)}" for thing in order)
        return " , ".join(parts) + " ."
    if text == "list the board .":
        order = sorted(scene.things, key=lambda thing: (thing.y * 4 // side, thing.x * 4 // side))
        parts = (f"{_square(thing, side)} {_described(thing)}" for thing in order)
        return " , ".join(parts) + " ."
    raise AssertionError(f"nobody taught this question: {text}")


def _named_in(text: str, scene: Scene, side: int) -> list[Thing]:
    """What a first turn is about."""
    if found := re.fullmatch(r"(?:what colour|what shape|where) is the (.+) \?", text):
        return _referents(found[1], scene)
    found = re.fullmatch(r"what is at the (\w+ \w+) \?", text)
    assert found is not None, text
    return [thing for thing in scene.things if _place(thing, side) == found[1]]


def _referents(name: str, scene: Scene) -> list[Thing]:
    """Objects that every word of a name fits."""
    return [
        thing
        for thing in scene.things
        if thing.kind == "object" and all(_fits(thing, word, scene) for word in name.split())
    ]


def _fits(thing: Thing, word: str, scene: Scene) -> bool:
    if word in ("large", "small"):
        # Elsewhere a size's name would depend on what else has been seen.
        assert scene.level == "hard"
        return (thing.width > 34) == (word == "large")
    if word in ("striped", "plain"):
        return thing.striped == (word == "striped")
    if word == "object":
        return True
    return word == (thing.colour if word in COLOURS else thing.shape)


def _of_kind(kind: str, scene: Scene) -> list[Thing]:
    if kind in PLURALS:
        return _referents(PLURALS[kind], scene)
    word, objects = kind.split()
    assert objects == "objects"
    return _referents(word, scene)


def _place(thing: Thing, side: int) -> str:
    return f"{ROWS[thing.y * 3 // side]} {COLUMNS[thing.x * 3 // side]}"


def _square(thing: Thing, side: int) -> str:
    return f"{'abcd'[thing.x * 4 // side]} {thing.y * 4 // side + 1}"


def _ground(name: str, scene: Scene, side: int) -> Ground:
    """The one whose middle has a place of that name."""
    places = {}
    for ground in scene.grounds:
        left, top, right, bottom = ground.box
        x, y = int(left + right) // 2, int(top + bottom) // 2
        places[f"{ROWS[y * 3 // side]} {COLUMNS[x * 3 // side]}"] = ground
    return places[name]


def _described(thing: Thing) -> str:
    if thing.kind == "object":
        return f"{thing.colour} {thing.shape}"
    return f"digit {thing.digit}" if thing.kind == "plate" else f"word {thing.word}"
