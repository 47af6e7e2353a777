"""A contact sheet: pictures of a task with what is asked about them, for people."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from tightrope.errors import InputError
from tightrope.runtime.images import load_image

if TYPE_CHECKING:
    from tightrope.profiles.task.task import Item

COLUMNS = 4
_CELL, _MARGIN = 252, 8
_LINE, _LINES, _LETTERS = 13, 6, 44
_PAPER, _INK, _MARK = (250, 250, 248), (20, 20, 24), (255, 0, 160)


def contact_sheet(items: Sequence[Item], file: Path) -> None:
    """Writes a PNG with a cell for each item: one of its pictures, boxes, question and answer.

    Of several pictures it is the one with the first box. Raises InputError if `file` exists or
    cannot be written.
    """
    columns = min(COLUMNS, len(items))
    width, height = _CELL + 2 * _MARGIN, _CELL + _LINES * _LINE + 3 * _MARGIN
    size = (columns * width, -(-len(items) // columns) * height)
    sheet = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default()
    for place, item in enumerate(items):
        row, column = divmod(place, columns)
        left, top = column * width + _MARGIN, row * height + _MARGIN
        if item.images:
            sheet.paste(_picture(item), (left, top))
        for line, text in enumerate(_text(item)):
            at = (left, top + _CELL + _MARGIN + line * _LINE)
            pen.text(at, text, fill=_INK, font=font)
    try:
        # "x": whatever came to be under the name since it was checked stays as it is.
        with open(file, "xb") as stream:
            sheet.save(stream, format="PNG")
    except OSError as error:
        raise InputError(f"{file} cannot be written ({error}); choose another place") from error


def _picture(item: Item) -> Image.Image:
    spots = _spots(item)
    chosen = spots[0][0] if spots else 0
    picture = load_image(item.images[chosen])
    scale = _CELL / max(picture.size)
    picture.thumbnail((_CELL, _CELL))
    pen = ImageDraw.Draw(picture)
    for image, box in spots:
        if image == chosen:
            left, top, right, bottom = (edge * min(scale, 1.0) for edge in box)
            pen.rectangle((left - 2, top - 2, right + 1, bottom + 1), outline=_MARK)
    return picture


def _spots(item: Item) -> list[tuple[int, list[float]]]:
    """Which image, and which box in it. Fields of info are free: what is no box is left out."""
    boxes, shown = item.info.get("about"), item.info.get("about_images")
    if not isinstance(boxes, list):
        return []
    if not isinstance(shown, list) or len(shown) != len(boxes):
        shown = [0] * len(boxes)
    return [
        (image, box)
        for image, box in zip(shown, boxes, strict=True)
        if image in range(len(item.images))
        and isinstance(box, list)
        and len(box) == 4
        and all(isinstance(edge, (int, float)) for edge in box)
        and box[0] <= box[2]
        and box[1] <= box[3]
    ]


def _text(item: Item) -> list[str]:
    """Lines under the picture; a long question keeps its end, where the question itself is."""
    asked = " / ".join(message["content"] for message in item.messages)
    lines = textwrap.wrap(asked, _LETTERS) or [""]
    if len(lines) > _LINES - 1:
        lines = ["...", *lines[2 - _LINES :]]
    answer = item.answers[0] if item.answers else "(none known)"
    return [*lines, textwrap.shorten(f"= {answer}", _LETTERS, placeholder=" ...")]
