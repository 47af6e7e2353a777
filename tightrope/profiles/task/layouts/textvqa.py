"""TextVQA 0.5.1: one JSON file, pictures named after their image_id.

{"data": [{"question_id": 34602, "question": "what is ...?", "image_id": "0054c91397f2fe05",
           "answers": ["nokia", ... ten of them]}]}
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tightrope.errors import InputError
from tightrope.profiles.task.layouts.layout import (
    NUM_PEOPLE,
    Entry,
    check_files,
    images_folder,
    read_json,
    records,
    short_answer,
    without_empty,
)

_KEYS = ("question_id", "question", "image_id")


def read(source: Path, images: Path | None) -> Iterator[Entry]:
    """The questions of file `source`; those of the test split have no answers.

    Raises InputError for another layout and for missing images.
    """
    folder = images_folder(images)
    questions = records(read_json(source), "data", _KEYS, str(source))
    names = [f"{question['image_id']}.jpg" for question in questions]
    check_files(names, folder)
    for question, name in zip(questions, names, strict=True):
        answers = question.get("answers")
        if answers is not None and (not isinstance(answers, list) or len(answers) != NUM_PEOPLE):
            raise InputError(
                f"{source}, question {question['question_id']} has answers {answers!r}; "
                f"accepted: a list of {NUM_PEOPLE}"
            )
        yield Entry(
            line={
                "id": str(question["question_id"]),
                "question": short_answer(question["question"]),
                "info": {"scoring": "vqa", "image_id": question["image_id"]}
                | without_empty({"image_classes": question.get("image_classes")}),
            }
            | without_empty({"answer": answers}),
            image=folder / name,
            image_name=name,
        )
