"""POPE: one JSON object a line, is something there or not, pictures of COCO.

{"question_id": 1, "image": "COCO_val2014_000000310196.jpg",
 "text": "Is there a snowboard in the image?", "label": "yes"}
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tightrope.errors import InputError
from tightrope.profiles.task.layouts.layout import (
    Entry,
    check_files,
    check_keys,
    images_folder,
    parse_json,
    read_text,
    short_answer,
)

SAMPLINGS = ("random", "popular", "adversarial")
"""How the things that are not there were drawn; the file's name says which."""


def read(source: Path, images: Path | None) -> Iterator[Entry]:
    """The questions of file `source`; the type is the sampling that its name says.

    Raises InputError for another layout and for missing images.
    """
    folder = images_folder(images)
    questions = []
    for number, line in enumerate(read_text(source).split("\n"), start=1):
        if line.strip():
            name = f"{source}, line {number},"
            question = parse_json(line, name)
            check_keys(question, ("question_id", "image", "text", "label"), name)
            if question["label"] not in ("yes", "no"):
                raise InputError(f"{name} has label {question['label']!r}; accepted: yes, no")
            questions.append(question)
    names = [str(question["image"]) for question in questions]
    check_files(names, folder)
    type = next((name for name in SAMPLINGS if name in source.stem), "other")
    for question, name in zip(questions, names, strict=True):
        yield Entry(
            line={
                "id": str(question["question_id"]),
                "question": short_answer(question["text"]),
                "answer": question["label"],
                "type": type,
            },
            image=folder / name,
            image_name=name,
        )
