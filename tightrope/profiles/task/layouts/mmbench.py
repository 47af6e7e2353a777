"""MMBench: a table with tabs, one question a row, options in columns A to D.

    index  question  hint  A  B  C  D  answer  category  image

The picture is base64 in the row itself, or the index of a row that holds it: turns of one question
with its options in another order.
"""

from __future__ import annotations

import base64
import binascii
import csv
import io
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from tightrope.errors import InputError
from tightrope.profiles.task.layouts.layout import Entry, read_text, without_empty

LETTERS = "ABCD"
CHOOSE = "Answer with the option's letter from the given choices directly."
"""Said after the options, as LLaVA-1.5 was evaluated."""
_COLUMNS = ("index", "question", "A", "B", "image")
_LONGEST_INDEX = 64
"""Characters; a longer cell is a picture."""
_MAX_CELL = 64 << 20


def read(source: Path, images: Path | None) -> Iterator[Entry]:
    """The questions of table `source`; the type is the category.

    An answer is right if it is the option's letter, its text, or both; the test split has none.
    Raises InputError for another layout, and for `images`: the pictures are in the table.
    """
    if images is not None:
        raise InputError("images is set, but MMBench's pictures are in its table; leave it out")
    rows = _rows(source)
    for index, row in rows.items():
        holder = row["image"] if len(row["image"]) <= _LONGEST_INDEX else index
        name = f"{source}, row {index!r}"
        if holder not in rows or len(rows[holder]["image"]) <= _LONGEST_INDEX:
            raise InputError(f"{name} has image {holder!r}; accepted: base64, or a row's index")
        encoded = _decoded(rows[holder]["image"], name)
        options = {letter: row[letter] for letter in LETTERS if row.get(letter)}
        lines = (f"{letter}. {option}" for letter, option in options.items())
        asked = "\n".join([*filter(None, (row.get("hint"), row["question"])), *lines, CHOOSE])
        yield Entry(
            line={
                "id": index,
                "question": asked,
                "type": row.get("category") or "other",
            }
            | without_empty({"answer": _accepted(row.get("answer") or "", options, name)}),
            image=encoded,
            image_name=f"{holder}.{_format(encoded, name)}",
        )


def _rows(source: Path) -> dict[str, dict[str, str]]:
    """The rows by their index."""
    limit = csv.field_size_limit(_MAX_CELL)
    try:
        table = csv.DictReader(io.StringIO(read_text(source), newline=""), delimiter="\t")
        missing = [name for name in _COLUMNS if name not in (table.fieldnames or ())]
        if missing:
            raise InputError(f"{source} is of another layout: it has no {', '.join(missing)}")
        rows: dict[str, dict[str, str]] = {}
        for row in table:
            if None in row or None in row.values():
                raise InputError(f"{source}, line {table.line_num} has cells too many or too few")
            if row["index"] in rows:
                raise InputError(
                    f"{source}, line {table.line_num} has index {row['index']!r} again"
                )
            rows[row["index"]] = row
        return rows
    except csv.Error as error:
        raise InputError(f"{source} is no table with tabs: {error}") from error
    finally:
        csv.field_size_limit(limit)


def _accepted(letter: str, options: dict[str, str], name: str) -> list[str]:
    if not letter:
        return []
    if letter not in options:
        raise InputError(f"{name} has answer {letter!r}; accepted: {', '.join(options)}")
    text = options[letter]
    return [letter, f"{letter}.", text, f"{letter}. {text}"]


def _decoded(cell: str, name: str) -> bytes:
    try:
        return base64.b64decode(cell, validate=True)
    except binascii.Error as error:
        raise InputError(f"{name} has an image that is no base64: {error}") from error


def _format(encoded: bytes, name: str) -> str:
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            return (image.format or "").lower()
    except UnidentifiedImageError as error:
        raise InputError(f"{name} has an image in no format that Pillow reads") from error
