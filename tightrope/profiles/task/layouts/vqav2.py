"""VQAv2: questions and people's answers in a JSON file each, pictures of COCO.

    v2_OpenEnded_mscoco_val2014_questions.json   {"questions": [{question_id, image_id, question}]}
    v2_mscoco_val2014_annotations.json           {"annotations": [{question_id, answers, ...}]}
    COCO_val2014_000000000042.jpg                any name that ends with the number in 12 digits

The annotations lie beside the questions, named like them without "OpenEnded_".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tightrope.errors import InputError
from tightrope.profiles.task.layouts.layout import (
    NUM_PEOPLE,
    Entry,
    check_found,
    check_keys,
    images_folder,
    read_json,
    records,
    short_answer,
    without_empty,
)

_NUMBERED = re.compile(r"(\d{12})\.\w+$")


def read(source: Path, images: Path | None) -> Iterator[Entry]:
    """The questions of file `source`; the type is VQA's: yes/no, number or other.

    Raises InputError for another layout and for missing annotations or images.
    """
    folder = images_folder(images)
    questions = records(
        read_json(source), "questions", ("question_id", "image_id", "question"), str(source)
    )
    annotations = _annotations(source)
    files = {int(match[1]): file for file in sorted(folder.iterdir()) if (match := _number(file))}
    wanted = [_image_id(question) for question in questions]
    check_found((f"a file *{image:012d}.*" for image in wanted if image not in files), folder)
    for question, image in zip(questions, wanted, strict=True):
        annotation = annotations.get(str(question["question_id"]))
        if annotation is None:
            raise InputError(f"question {question['question_id']} of {source} has no annotation")
        yield Entry(
            line={
                "id": str(question["question_id"]),
                "question": short_answer(question["question"]),
                "answer": [answer["answer"] for answer in annotation["answers"]],
                "type": annotation.get("answer_type") or "other",
                "info": {"scoring": "vqa", "image_id": image}
                | without_empty({"question_type": annotation.get("question_type")}),
            },
            image=files[image],
            image_name=files[image].name,
        )


def _number(file: Path) -> re.Match[str] | None:
    return _NUMBERED.search(file.name)


def _image_id(question: dict[str, Any]) -> int:
    try:
        return int(question["image_id"])
    except (TypeError, ValueError):
        raise InputError(
            f"question {question['question_id']} has image_id {question['image_id']!r}; "
            "accepted: a number"
        ) from None


def _annotations(source: Path) -> dict[str, dict[str, Any]]:
    """Each question's annotation, by its id."""
    name = source.name.replace("OpenEnded_", "").replace("questions", "annotations")
    file = source.with_name(name)
    if name == source.name or not file.is_file():
        raise InputError(
            f"{source} has no annotations beside it; accepted: ...questions.json with "
            "...annotations.json in the same folder"
        )
    found = records(read_json(file), "annotations", ("question_id", "answers"), str(file))
    for annotation in found:
        answers = annotation["answers"]
        where = f"{file}, question {annotation['question_id']}"
        if not isinstance(answers, list) or len(answers) != NUM_PEOPLE:
            raise InputError(f"{where} has answers {answers!r}; accepted: a list of {NUM_PEOPLE}")
        for answer in answers:
            check_keys(answer, ("answer",), f"{where}: an answer")
    return {str(annotation["question_id"]): annotation for annotation in found}
