"""Small files in other layouts become tasks, or are refused by what is wrong with them."""

from __future__ import annotations

import base64
import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tightrope.errors import InputError
from tightrope.profiles.task.layouts import LAYOUTS, convert
from tightrope.profiles.task.layouts.layout import SHORT_ANSWER
from tightrope.profiles.task.task import FILE, Item, read_task

Paint = Callable[..., Path]
TEN = ["red"] * 7 + ["dark red"] * 3


class Source:
    """Files of each layout, made from values that a test may change first."""

    def __init__(self, folder: Path, paint: Paint) -> None:
        self.folder, self.paint = folder, paint
        self.images = folder / "pictures"
        self.out = folder / "task"
        self.questions: Any = {
            "questions": [
                {"question_id": 420, "image_id": 42, "question": "What colour is it?"},
                {"question_id": 421, "image_id": 42, "question": "Is it red?"},
            ]
        }
        self.annotations: Any = {
            "annotations": [
                {
                    "question_id": number,
                    "question_type": "what",
                    "answer_type": kind,
                    "answers": [{"answer": text, "answer_id": i} for i, text in enumerate(TEN)],
                }
                for number, kind in ((421, "yes/no"), (420, "other"))
            ]
        }
        self.textvqa: Any = {
            "data": [
                {"question_id": 7, "question": "What is said?", "image_id": "a1", "answers": TEN},
                {"question_id": 8, "question": "And here?", "image_id": "a1"},
            ]
        }
        name = "COCO_val2014_000000000042.jpg"
        self.pope: list[Any] = [
            {"question_id": 1, "image": name, "text": "Is there a cup?", "label": "yes"},
            {"question_id": 2, "image": name, "text": "Is there a dog?", "label": "no"},
        ]
        encoded = base64.b64encode(paint(folder / "in.png", "blue").read_bytes()).decode()
        first = {"index": "5", "question": 'Which "one"?', "hint": "Look\tclosely.\nTwice."}
        first |= {"A": "a cup", "B": "a dog", "C": "", "answer": "B", "category": "finding"}
        self.mmbench: list[dict[str, str]] = [
            {**first, "image": encoded},
            {**first, "index": "1000005", "hint": "", "answer": "A", "image": "5"},
        ]
        self.mmbench[1] |= {"A": "a dog", "B": "a cup"}

        self.easy_vqa: Any = [
            ["what is the red shape?", "triangle", 0],
            ["what color is it?", "teal", 12],
            ["is there no circle?", "yes", 0],
        ]

    def easy_vqa_file(self) -> Path:
        for number in (0, 12):
            self.paint(self.images / f"{number}.png")
        file = self.folder / "questions.json"
        file.write_text(json.dumps(self.easy_vqa))
        return file

    def vqav2_file(self) -> Path:
        self.paint(self.images / "COCO_val2014_000000000042.jpg")
        (self.images / "readme.txt").touch()
        name = "v2_mscoco_val2014_annotations.json"
        (self.folder / name).write_text(json.dumps(self.annotations))
        file = self.folder / "v2_OpenEnded_mscoco_val2014_questions.json"
        file.write_text(json.dumps(self.questions))
        return file

    def textvqa_file(self) -> Path:
        self.paint(self.images / "a1.jpg")
        file = self.folder / "TextVQA_0.5.1_val.json"
        file.write_text(json.dumps(self.textvqa))
        return file

    def pope_file(self) -> Path:
        self.paint(self.images / "COCO_val2014_000000000042.jpg")
        file = self.folder / "coco_pope_popular.json"
        file.write_text("".join(json.dumps(line) + "\n" for line in self.pope))
        return file

    def mmbench_file(self) -> Path:
        file = self.folder / "MMBench_DEV_EN.tsv"
        with open(file, "w", encoding="utf-8", newline="") as stream:
            table = csv.DictWriter(stream, self.mmbench[0], delimiter="\t")
            table.writeheader()
            table.writerows(self.mmbench)
        return file

    def convert(self, layout: str) -> tuple[Item, ...]:
        file: Path = getattr(self, f"{layout.replace('-', '_')}_file")()
        images = None if layout == "mmbench" else self.images
        return convert(layout, file, images, self.out).items


@pytest.fixture
def source(tmp_path: Path, paint: Paint) -> Source:
    return Source(tmp_path, paint)


def asked(item: Item) -> str:
    return item.messages[-1]["content"]


def test_vqav2(source: Source) -> None:
    first, second = source.convert("vqav2")
    assert (first.id, second.id) == ("420", "421")
    assert asked(first) == f"What colour is it?\n{SHORT_ANSWER}"
    assert first.answers == tuple(TEN)
    assert (first.type, second.type) == ("other", "yes/no")
    assert first.info == {"scoring": "vqa", "image_id": 42, "question_type": "what"}
    assert first.images == (source.out / "images" / "COCO_val2014_000000000042.jpg",)


def test_textvqa(source: Source) -> None:
    first, second = source.convert("textvqa")
    assert (first.id, first.answers, first.info["scoring"]) == ("7", tuple(TEN), "vqa")
    assert asked(first) == f"What is said?\n{SHORT_ANSWER}"
    assert first.images == second.images == (source.out / "images" / "a1.jpg",)
    assert second.answers == ()


def test_pope(source: Source) -> None:
    items = source.convert("pope")
    assert [item.answers for item in items] == [("yes",), ("no",)]
    assert {item.type for item in items} == {"popular"}
    assert asked(items[0]) == f"Is there a cup?\n{SHORT_ANSWER}"


def test_easy_vqa(source: Source) -> None:
    items = source.convert("easy-vqa")
    assert [item.type for item in items] == ["shape", "colour", "yes/no"]
    assert [item.answers for item in items] == [("triangle",), ("teal",), ("yes",)]
    assert asked(items[0]) == f"what is the red shape?\n{SHORT_ANSWER}"
    assert items[0].images == items[2].images != items[1].images
    assert items[1].info == {"image_id": 12}


def test_easy_vqa_finds_the_pictures_that_lie_beside_its_questions(source: Source) -> None:
    file = source.easy_vqa_file()
    source.images.rename(source.folder / "images")
    assert len(convert("easy-vqa", file, None, source.out).items) == 3


def test_mmbench(source: Source) -> None:
    first, turned = source.convert("mmbench")
    assert asked(first) == (
        'Look\tclosely.\nTwice.\nWhich "one"?\nA. a cup\nB. a dog\n'
        "Answer with the option's letter from the given choices directly."
    )
    assert asked(turned).startswith('Which "one"?\nA. a dog\n')
    assert first.answers == ("B", "B.", "a dog", "B. a dog")
    assert turned.answers[0] == "A"
    assert first.images == turned.images == (source.out / "images" / "5.png",)
    with Image.open(first.images[0]) as image:
        assert image.getpixel((0, 0)) == (0, 0, 255)


def test_mmbench_without_answers_has_no_reference(source: Source) -> None:
    source.mmbench = [{**row, "answer": ""} for row in source.mmbench]
    assert [item.answers for item in source.convert("mmbench")] == [(), ()]


def test_pictures_are_linked_or_else_copied(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = source.images / "a1.jpg"
    (linked,) = {item.images[0] for item in source.convert("textvqa")}
    assert linked.samefile(original)

    def refuse(*_: object) -> None:
        raise OSError("another file system")

    monkeypatch.setattr(os, "link", refuse)
    source.out = source.folder / "second"
    (copied,) = {item.images[0] for item in source.convert("textvqa")}
    assert not copied.samefile(original)
    assert copied.read_bytes() == original.read_bytes()


def test_pictures_that_lie_in_the_task_already_stay(source: Source) -> None:
    source.images = source.out / "images"
    assert len(source.convert("pope")) == 2
    assert len(list(source.images.iterdir())) == 1


def test_a_second_import_does_not_overwrite_a_task(source: Source) -> None:
    source.convert("pope")
    with pytest.raises(InputError, match=r"already has a task\.jsonl; name another folder"):
        source.convert("pope")


def test_a_failed_import_leaves_no_task_and_can_be_repeated(source: Source) -> None:
    file = source.pope_file()
    picture = source.images / "COCO_val2014_000000000042.jpg"
    whole = picture.read_bytes()
    picture.write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"task\.jsonl, line 1: image .* cannot be read"):
        convert("pope", file, source.images, source.out)
    assert not (source.out / FILE).exists()
    picture.write_bytes(whole)
    convert("pope", file, source.images, source.out)
    assert len(read_task(source.out).items) == 2


def cut(value: Any, *path: Any) -> None:
    """Takes away what lies at `path` inside `value`."""
    for key in path[:-1]:
        value = value[key]
    del value[path[-1]]


WRONG: list[tuple[str, Callable[[Source], object], str]] = [
    ("vqav2", lambda s: cut(s.questions, "questions"), "of another layout: it has no list 'quest"),
    ("vqav2", lambda s: cut(s.questions, "questions", 1, "image_id"), r"\[1\], .* no image_id"),
    ("vqav2", lambda s: s.questions["questions"].append(5), r"\[2\], is of another layout"),
    ("vqav2", lambda s: s.questions["questions"][0].update(image_id="x"), "image_id 'x'; accept"),
    ("vqav2", lambda s: s.questions["questions"][0].update(question=5), "a question is 5"),
    ("vqav2", lambda s: s.questions["questions"][0].update(image_id=9), r"lacks .*\*000000000009"),
    ("vqav2", lambda s: cut(s.annotations, "annotations", 0), "question 421 .* no annotation"),
    ("vqav2", lambda s: cut(s.annotations, "annotations", 0, "answers", 9), "list of 10"),
    ("vqav2", lambda s: cut(s.annotations, "annotations", 0, "answers", 9, "answer"), "no answer"),
    ("textvqa", lambda s: setattr(s, "textvqa", []), "it has no list 'data'"),
    ("textvqa", lambda s: s.textvqa["data"][0].update(image_id="b"), r"which lacks b\.jpg"),
    ("textvqa", lambda s: s.textvqa["data"][0].update(image_id="../a1"), r"lacks \.\./a1\.jpg"),
    ("textvqa", lambda s: s.textvqa["data"][0].update(answers=["a"]), "accepted: a list of 10"),
    ("pope", lambda s: s.pope.insert(1, "yes"), "line 2, is of another layout"),
    ("pope", lambda s: s.pope[1].update(label="maybe"), "line 2, has label 'maybe'"),
    ("pope", lambda s: cut(s.pope, 0, "text"), "line 1, is of another layout: it has no text"),
    ("pope", lambda s: [line.update(image=f"{line['text']}.jpg") for line in s.pope], "and 1 more"),
    ("pope", lambda s: s.pope[1].update(question_id=1), "id '1' is already that of line 1"),
    ("easy-vqa", lambda s: setattr(s, "easy_vqa", {}), "another layout: it is no list"),
    ("easy-vqa", lambda s: s.easy_vqa.append(["what?", "red"]), r"\[3\], is of another layout"),
    ("easy-vqa", lambda s: s.easy_vqa[1].__setitem__(2, "1"), r"\[1\], is of another layout"),
    ("easy-vqa", lambda s: s.easy_vqa[1].__setitem__(2, True), r"\[1\], is of another layout"),
    ("easy-vqa", lambda s: s.easy_vqa[1].__setitem__(2, 7), r"which lacks 7\.png"),
    ("easy-vqa", lambda s: s.easy_vqa[0].__setitem__(0, ""), "a question is ''"),
    ("mmbench", lambda s: [row.pop("image") for row in s.mmbench], "another layout.* no image"),
    ("mmbench", lambda s: s.mmbench[1].update(index="5"), "has index '5' again"),
    ("mmbench", lambda s: s.mmbench[1].update(image="6"), "has image '6'; accepted: base64"),
    ("mmbench", lambda s: s.mmbench[0].update(image="?" * 99), "an image that is no base64"),
    ("mmbench", lambda s: s.mmbench[0].update(image="A" * 100), "in no format that Pillow"),
    ("mmbench", lambda s: s.mmbench[0].update(answer="C"), "has answer 'C'; accepted: A, B"),
    ("mmbench", lambda s: s.mmbench[0].update(index="6"), "has image '5'"),
]  # fmt: skip


@pytest.mark.parametrize(("layout", "change", "message"), WRONG)
def test_what_is_wrong_is_named_and_no_task_is_written(
    source: Source, layout: str, change: Callable[[Source], object], message: str
) -> None:
    change(source)
    with pytest.raises(InputError, match=message):
        source.convert(layout)
    assert not (source.out / FILE).exists()


def test_no_picture_is_written_outside_the_task(source: Source) -> None:
    source.mmbench = [{**source.mmbench[0], "index": "../5"}]
    with pytest.raises(InputError, match=r"image '\.\./5\.png' is no plain file name"):
        source.convert("mmbench")
    assert not (source.out.parent / "5.png").exists()


def test_a_row_of_the_table_has_all_its_cells(source: Source) -> None:
    file = source.mmbench_file()
    with open(file, "a", encoding="utf-8") as stream:
        stream.write("6\twhat ?\n")
    with pytest.raises(InputError, match="cells too many or too few"):
        convert("mmbench", file, None, source.out)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_of_bytes_is_of_no_layout(source: Source, layout: str) -> None:
    file = source.folder / "questions.json"
    file.write_bytes(b"\xff\x00")
    source.images.mkdir()
    images = None if layout == "mmbench" else source.images
    with pytest.raises(InputError, match=r"questions\.json cannot be read"):
        convert(layout, file, images, source.out)


def test_places_are_checked_first(source: Source) -> None:
    file, table = source.pope_file(), source.mmbench_file()
    for layout, where, images, message in (
        ("coco", file, source.images, "layout is 'coco'; accepted: vqav2, textvqa, pope, mmbench"),
        ("pope", source.folder, source.images, "source is .* not a file"),
        ("pope", file, None, "images is missing"),
        ("pope", file, file, "images is .* not a folder"),
        ("mmbench", table, source.images, "pictures are in its table"),
    ):
        with pytest.raises(InputError, match=message):
            convert(layout, where, images, source.out)


def test_questions_of_vqav2_need_their_annotations(source: Source) -> None:
    file = source.vqav2_file()
    alone = file.rename(source.folder / "other_questions.json")
    with pytest.raises(InputError, match="has no annotations beside it"):
        convert("vqav2", alone, source.images, source.out)
