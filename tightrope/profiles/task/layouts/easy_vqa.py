"""easy-VQA: one JSON list of triples, pictures of one drawn shape named after their number.

[["what is the red shape?", "triangle", 0], ["is there a circle?", "no", 0]]

The package `easy-vqa` holds it as `easy_vqa/data/test/questions.json` with `images` beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tightrope.errors import InputError
from tightrope.profiles.task.layouts.layout import (
    Entry,
    check_files,
    images_folder,
    read_json,
    short_answer,
)

SHAPES = ("circle", "rectangle", "triangle")


def read(source: Path, images: Path | None) -> Iterator[Entry]:
    """The questions of file `source`; their type is what they ask for.

    images: None for the folder `images` beside the file, where the package has them.
    Raises InputError for another layout and for missing images.
    """
    folder = images_folder(source.parent / "images" if images is None else images)
    found = read_json(source)
    if not isinstance(found, list):
        raise InputError(f"{source} is of another layout: it is no list of questions")
    triples = [_triple(triple, f"{source}, [{at}],") for at, triple in enumerate(found)]
    check_files([f"{number}.png" for _, _, number in triples], folder)
    for at, (question, answer, number) in enumerate(triples):
        yield Entry(
            line={
                "id": str(at),
                "question": short_answer(question),
                "answer": answer,
                "type": _type(answer),
                "info": {"image_id": number},
            },
            image=folder / f"{number}.png",
            image_name=f"{number}.png",
        )


def _triple(found: Any, name: str) -> tuple[str, str, int]:
    kinds = [type(part) for part in found] if isinstance(found, list) else []
    if kinds != [str, str, int]:
        raise InputError(f"{name} is of another layout: it is no [question, answer, image number]")
    question, answer, number = found
    return question, answer, number


def _type(answer: str) -> str:
    if answer in ("yes", "no"):
        return "yes/no"
    return "shape" if answer in SHAPES else "colour"
