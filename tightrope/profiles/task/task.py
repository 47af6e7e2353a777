"""A task: a folder with images and `task.jsonl`, one question a line.

    {"id": "000-0", "images": ["images/000.png"], "question": "what colour is it ?",
     "answer": "red", "type": "colour", "info": {"level": "easy"}}

id        a string that no other line has
images    paths inside the folder; left out for a question about text alone
seconds   of each image where they are the frames of a clip, earlier ones first
question  a string; or `messages`, a list of {"role", "content"} that ends with the user's turn
answer    a string, or a list of accepted ones; left out where no right answer is known
type      what kind of question it is, "other" where left out
info      fields of any name; `scoring: "vqa"` asks for the accuracy of `vqa.py`
"""

from __future__ import annotations

import codecs
import difflib
import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from tightrope.checks import check_type
from tightrope.errors import InputError
from tightrope.folders import reaching

FILE = "task.jsonl"
KEYS = ("id", "images", "seconds", "question", "messages", "answer", "type", "info")
ROLES = ("system", "user", "assistant")
SCORINGS = ("exact", "vqa")
VQA_LEAST = 4
"""Accepted answers that the accuracy of VQA needs: below, no answer could be wholly right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One question."""

    id: str
    images: tuple[Path, ...]
    """Absolute, in the order in which the messages show them."""
    seconds: tuple[float, ...] = ()
    """Of each of them where they are the frames of a clip, else none."""
    messages: tuple[dict[str, str], ...]
    """{"role", "content"}; the last one is the user's."""
    answers: tuple[str, ...]
    """Accepted ones, repeated as often as people gave them; empty: no reference."""
    type: str
    info: Mapping[str, Any]

    @property
    def stills(self) -> tuple[Path, ...]:
        """Its images where they are no clip."""
        return () if self.seconds else self.images

    @property
    def frames(self) -> tuple[tuple[float, Path], ...]:
        """Its images where they are one."""
        return tuple(zip(self.seconds, self.images, strict=False))


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """The questions of a folder, in the order of its lines."""

    folder: Path
    items: tuple[Item, ...]


def read_task(folder: Path) -> Task:
    """The task in `folder`, every line and every image checked before a model has to be loaded.

    Images are opened, not decoded. Raises InputError naming file and line of what is wrong.
    """
    file = folder / FILE
    with reaching("task", folder):
        is_folder = folder.is_dir()
    if not is_folder:
        raise InputError(f"task {str(folder)!r} is not a folder; accepted: one that has {FILE}")
    try:
        lines = file.read_bytes().removeprefix(codecs.BOM_UTF8).split(b"\n")
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}); a task has one") from error
    root = folder.absolute()
    items: list[Item] = []
    line_of: dict[str, int] = {}
    checked: set[Path] = set()
    # Not splitlines: JSON may hold U+2028 and its like inside a string.
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            item = _item(_object(line), root)
            if item.id in line_of:
                raise InputError(f"id {item.id!r} is already that of line {line_of[item.id]}")
            for image in item.images:
                if image not in checked:
                    _check_image(image)
            checked.update(item.images)
        except InputError as error:
            raise InputError(f"{file}, line {number}: {error}") from error
        line_of[item.id] = number
        items.append(item)
    if not items:
        raise InputError(f"{file} has no questions; accepted: one JSON object a line")
    return Task(folder=root, items=tuple(items))


def task_digest(task: Task) -> str:
    """SHA-256 of the questions, what is accepted as their answers, and the bytes of their images.

    Neither the order of lines nor names of files count. Raises InputError for an image that cannot
    be read.
    """
    hashes: dict[Path, str] = {}
    for image in (image for item in task.items for image in item.images):
        if image not in hashes:
            try:
                hashes[image] = hashlib.sha256(image.read_bytes()).hexdigest()
            except OSError as error:
                raise InputError(f"image {str(image)!r} cannot be read ({error})") from error
    told = [
        {
            "id": item.id,
            "images": [hashes[image] for image in item.images],
            "messages": item.messages,
            "answers": item.answers,
            "scoring": item.info.get("scoring", "exact"),
            **({"seconds": item.seconds} if item.seconds else {}),
        }
        for item in sorted(task.items, key=lambda item: item.id)
    ]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def write_task(folder: Path, lines: Iterable[Mapping[str, Any]]) -> Path:
    """Writes `lines`, objects with the keys above, as the task file of `folder`; returns its path.

    The folder is made if it is missing. The same lines give the same bytes, and a file under the
    name is always a whole one. Raises InputError for unknown keys and what cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"folder {str(folder)!r} cannot be made ({error.strerror})") from error
    file = folder / FILE
    write_lines(file, (_ordered(line) for line in lines))
    return file


def write_lines(file: Path, objects: Iterable[Mapping[str, Any]]) -> None:
    """One JSON object a line, to a neighbour first that is renamed once it is whole.

    Raises InputError where the file cannot be written or JSON cannot say a value.
    """
    beside = file.with_name(f".{file.name}.part")
    try:
        with open(beside, "w", encoding="utf-8", newline="\n") as stream:
            for entry in objects:
                stream.write(json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n")
        os.replace(beside, file)
    except (OSError, TypeError, ValueError) as error:
        beside.unlink(missing_ok=True)
        raise InputError(f"{file} cannot be written: {error}") from error


def _ordered(line: Mapping[str, Any]) -> dict[str, Any]:
    _check_keys(line)
    entry = {key: line[key] for key in KEYS if key in line}
    if "info" in entry:
        entry["info"] = dict(sorted(entry["info"].items()))
    return entry


def _object(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(f"byte {error.start} of the line is not UTF-8; save it as that") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"this is no JSON ({error}); accepted: one object a line") from error
    if not isinstance(value, dict):
        raise InputError(f"this is a {type(value).__name__}; accepted: one JSON object a line")
    _check_keys(value)
    return value


def _check_keys(value: Mapping[str, Any]) -> None:
    for key in value:
        if key not in KEYS:
            close = difflib.get_close_matches(str(key), KEYS, 1)
            meant = f", {close[0]!r} was probably meant" if close else ""
            raise InputError(
                f"{key!r} is no key of a question{meant}; accepted: {', '.join(KEYS)}, and "
                "fields of any name inside info"
            )


def _item(value: dict[str, Any], root: Path) -> Item:
    item = Item(
        id=_text(value, "id"),
        images=_images(value.get("images", []), root),
        seconds=_seconds(value),
        messages=_messages(value),
        answers=_answers(value),
        type=_text({"type": "other"} | value, "type"),
        info=value.get("info", {}),
    )
    check_type("info", item.info, dict, "an object")
    scoring = item.info.get("scoring", "exact")
    if scoring not in SCORINGS:
        raise InputError(f"info has scoring {scoring!r}; accepted: {', '.join(SCORINGS)}")
    if scoring == "vqa" and 0 < len(item.answers) < VQA_LEAST:
        raise InputError(
            f"scoring is 'vqa' with {len(item.answers)} answers; accepted: {VQA_LEAST} or more, "
            "one from each person who was asked"
        )
    return item


def _text(value: Mapping[str, Any], key: str) -> str:
    if key not in value:
        raise InputError(f"{key} is missing; accepted: a string that is not empty")
    text = value[key]
    if not isinstance(text, str) or not text:
        raise InputError(f"{key} is {text!r}; accepted: a string that is not empty")
    return text


def _images(names: Any, root: Path) -> tuple[Path, ...]:
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise InputError(f"images is {names!r}; accepted: a list of paths relative to the folder")
    return tuple(root / _inside(name) for name in names)


def _seconds(value: Mapping[str, Any]) -> tuple[float, ...]:
    seconds, images = value.get("seconds", []), value.get("images", [])
    good = isinstance(seconds, list) and all(type(each) in (int, float) for each in seconds)
    if not good or (seconds and len(seconds) != len(images)):
        raise InputError(f"seconds is {seconds!r}; accepted: a number for each image")
    if not all(one < other for one, other in itertools.pairwise([-1, *seconds])):
        raise InputError(f"seconds is {seconds!r}; accepted: numbers from 0 on that grow")
    return tuple(map(float, seconds))


def _inside(name: str) -> str:
    path = os.path.normpath(name)
    if os.path.isabs(path) or path.split(os.sep)[0] == os.pardir:
        raise InputError(f"image {name!r} lies outside the folder; accepted: paths inside it")
    return path


def _check_image(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"image {str(path)!r} is not a file")
    try:
        with Image.open(path) as image:
            image.verify()
    except Exception as error:  # Pillow's decoders raise no common class
        raise InputError(f"image {str(path)!r} cannot be read: {error}") from error


def _messages(value: Mapping[str, Any]) -> tuple[dict[str, str], ...]:
    if ("question" in value) == ("messages" in value):
        both = "both are" if "question" in value else "neither is"
        raise InputError(f"{both} there; accepted: either question or messages")
    if "question" in value:
        return ({"role": "user", "content": _text(value, "question")},)
    messages = value["messages"]
    if not isinstance(messages, list) or not messages:
        raise InputError(f"messages is {messages!r}; accepted: a list of {{role, content}}")
    for number, message in enumerate(messages):
        name = f"messages[{number}]"
        if not isinstance(message, dict) or set(message) != {"role", "content"}:
            raise InputError(f"{name} is {message!r}; accepted: an object with role and content")
        if message["role"] not in ROLES:
            raise InputError(f"{name} has role {message['role']!r}; accepted: {', '.join(ROLES)}")
        if not isinstance(message["content"], str):
            raise InputError(f"{name} has content {message['content']!r}; accepted: a string")
    if messages[-1]["role"] != "user":
        raise InputError(f"messages end with role {messages[-1]['role']!r}; accepted: user")
    return tuple(messages)


def _answers(value: Mapping[str, Any]) -> tuple[str, ...]:
    if "answer" not in value:
        return ()
    answer = value["answer"]
    answers = [answer] if isinstance(answer, str) else answer
    if (
        not isinstance(answers, list)
        or not answers
        or not all(isinstance(text, str) for text in answers)
    ):
        raise InputError(f"answer is {answer!r}; accepted: a string, or a list of strings")
    return tuple(answers)
