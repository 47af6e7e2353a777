"""What the readers of other layouts give, and what they share."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tightrope.errors import InputError

SHORT_ANSWER = "Answer the question using a single word or phrase."
"""Said after an open question, as LLaVA-1.5 was evaluated: a sentence matches no reference."""
NUM_PEOPLE = 10
"""Who answered each question of the VQA benchmarks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One question of another layout."""

    line: dict[str, Any]
    """Its line in task.jsonl, without images."""
    image: Path | bytes
    """A file, or an encoded image."""
    image_name: str
    """Name of the image's file in the task; entries with equal names share it."""


def read_json(file: Path) -> Any:
    """What a JSON file holds; raises InputError if it cannot be read."""
    return parse_json(read_text(file), str(file))


def read_text(file: Path) -> str:
    """A UTF-8 file's text; raises InputError if it cannot be read."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read: {error}") from error


def parse_json(text: str, name: str) -> Any:
    """The value that JSON `text` says; raises InputError naming it `name`."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name} is no JSON: {error}") from error


def records(value: Any, list_key: str, keys: Sequence[str], name: str) -> list[dict[str, Any]]:
    """The objects in `value[list_key]`, each with all of `keys`.

    Raises InputError saying that `name` is of another layout.
    """
    found = value.get(list_key) if isinstance(value, dict) else None
    if not isinstance(found, list):
        raise InputError(f"{name} is of another layout: it has no list {list_key!r}")
    for number, record in enumerate(found):
        check_keys(record, keys, f"{name}, {list_key}[{number}],")
    return found


def check_keys(record: Any, keys: Sequence[str], name: str) -> None:
    """Raises InputError if `record` is no object with all of `keys`."""
    missing = [key for key in keys if not isinstance(record, dict) or key not in record]
    if missing:
        raise InputError(f"{name} is of another layout: it has no {', '.join(missing)}")


def images_folder(images: Path | None) -> Path:
    """The folder; raises InputError if none was named or it is not there."""
    if images is None:
        raise InputError("images is missing; accepted: the folder with the pictures (--images)")
    if not images.is_dir():
        raise InputError(f"images is {str(images)!r}, which is not a folder")
    return images


def check_found(missing: Iterable[str], images: Path) -> None:
    """Raises InputError if any image is missing, naming the first and how many there are."""
    names = list(dict.fromkeys(missing))
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise InputError(f"images is {str(images)!r}, which lacks {names[0]}{more}")


def check_files(names: Iterable[str], images: Path) -> None:
    """Raises InputError if the folder lacks any file of these names."""
    check_found((name for name in names if not (images / name).is_file()), images)


def short_answer(question: Any) -> str:
    """The question, and that its answer be short; raises InputError if it is no text."""
    if not isinstance(question, str) or not question:
        raise InputError(f"a question is {question!r}; accepted: a string that is not empty")
    return f"{question}\n{SHORT_ANSWER}"


def without_empty(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that say something."""
    return {key: value for key, value in fields.items() if value not in (None, "", [])}
