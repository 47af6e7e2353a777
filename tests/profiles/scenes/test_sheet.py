from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tightrope.errors import InputError
from tightrope.profiles.scenes.sheet import COLUMNS, contact_sheet
from tightrope.profiles.task.task import Item

MARK = (255, 0, 160)


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[Path, ...]:
    files = tuple(tmp_path / f"{name}.png" for name in ("dark", "light"))
    for file, shade in zip(files, (60, 200), strict=True):
        Image.new("RGB", (504, 504), (shade, shade, shade)).save(file)
    return files


def item(images: tuple[Path, ...] = (), question: str = "what is it ?", **info: Any) -> Item:
    return Item(
        id="0",
        images=images,
        messages=({"role": "user", "content": question},),
        answers=("nothing",),
        type="other",
        info=info,
    )


def drawn(items: list[Item], file: Path) -> np.ndarray[Any, Any]:
    contact_sheet(items, file)
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))


def test_cells_stand_in_rows(tmp_path: Path, pictures: tuple[Path, ...]) -> None:
    one = drawn([item(pictures)], tmp_path / "one.png")
    many = drawn([item(pictures)] * (COLUMNS + 1), tmp_path / "many.png")
    assert many.shape == (2 * one.shape[0], COLUMNS * one.shape[1], 3)


def test_a_box_is_drawn_where_it_is(tmp_path: Path, pictures: tuple[Path, ...]) -> None:
    sheet = drawn([item(pictures[:1], about=[[100, 200, 140, 260]])], tmp_path / "sheet.png")
    rows, columns = np.nonzero((sheet == MARK).all(axis=2))
    # Half the size, eight pixels of margin, and the mark goes round the box.
    assert (columns.min(), columns.max()) == (8 + 50 - 2, 8 + 70 + 1)
    assert (rows.min(), rows.max()) == (8 + 100 - 2, 8 + 130 + 1)


def test_the_picture_with_the_first_box_is_shown(
    tmp_path: Path, pictures: tuple[Path, ...]
) -> None:
    boxes: dict[str, Any] = {"about": [[0, 0, 9, 9], [100, 100, 110, 110]], "about_images": [1, 0]}
    sheet = drawn([item(pictures, **boxes)], tmp_path / "sheet.png")
    assert (sheet[200, 200] == 200).all()
    rows, _ = np.nonzero((sheet == MARK).all(axis=2))
    assert rows.max() < 30


@pytest.mark.parametrize(
    "info",
    [
        {"about": "cats"},
        {"about": [[1, 2, 3]]},
        {"about": [["a", 0, 1, 1]]},
        {"about": [[9, 9, 1, 1]]},
        {"about": [[0, 0, 1, 1]], "about_images": [7]},
        {"about": [[0, 0, 1, 1]], "about_images": ["first"]},
    ],
)
def test_fields_that_are_no_boxes_are_left_out(
    tmp_path: Path, pictures: tuple[Path, ...], info: dict[str, Any]
) -> None:
    sheet = drawn([item(pictures, **info)], tmp_path / "sheet.png")
    assert not (sheet == MARK).all(axis=2).any()


def test_a_question_about_text_alone_keeps_its_end(tmp_path: Path) -> None:
    # Nine words fill a line, so that both end alike.
    long, longer = ("word " * n + "what has the key ?" for n in (180, 270))
    one, other = (drawn([item(question=q)], tmp_path / f"{len(q)}.png") for q in (long, longer))
    np.testing.assert_array_equal(one, other)
    assert (one[270:] < 100).any()


def test_a_place_that_is_taken_or_missing_is_refused(
    tmp_path: Path, pictures: tuple[Path, ...]
) -> None:
    for file in (pictures[0], tmp_path / "no" / "sheet.png"):
        with pytest.raises(InputError, match="cannot be written"):
            contact_sheet([item(pictures)], file)
