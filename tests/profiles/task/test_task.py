"""A task is read whole, or refused by file, line and what is wrong there."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.errors import InputError
from tightrope.profiles.task.task import (
    FILE,
    Item,
    read_task,
    task_digest,
    write_lines,
    write_task,
)

Paint = Callable[..., Path]
SCENES = Path(__file__).parents[2] / "data" / "scenes"
ASKED: dict[str, Any] = {"id": "a", "question": "what is it ?"}


def written(folder: Path, *lines: dict[str, Any] | bytes) -> Path:
    """A folder whose task file has these lines."""
    raw = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    (folder / FILE).write_bytes(b"\n".join(raw))
    return folder


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def test_a_question_becomes_an_item(tmp_path: Path, paint: Paint) -> None:
    image = paint(tmp_path / "images" / "a.png")
    line = {
        **ASKED,
        "images": ["images/./a.png"],
        "answer": ["red", "dark red"],
        "type": "colour",
        "info": {"level": 3},
    }
    (item,) = read_task(written(tmp_path, line)).items
    assert item == Item(
        id="a",
        images=(image,),
        messages=({"role": "user", "content": "what is it ?"},),
        answers=("red", "dark red"),
        type="colour",
        info={"level": 3},
    )
    assert item.images[0].is_absolute()


def test_what_may_be_left_out_is_filled_in(tmp_path: Path) -> None:
    (item,) = read_task(written(tmp_path, ASKED)).items
    assert (item.images, item.answers, item.type, item.info) == ((), (), "other", {})


def test_several_turns_are_kept_as_they_are(tmp_path: Path) -> None:
    turns = [user("hello"), {"role": "assistant", "content": "hi"}, user("and now ?")]
    (item,) = read_task(written(tmp_path, {"id": "a", "messages": turns})).items
    assert list(item.messages) == turns


def test_blank_lines_and_a_byte_order_mark_are_skipped(tmp_path: Path) -> None:
    lines = (b"\xef\xbb\xbf", b"", json.dumps(ASKED).encode() + b"\r", b"  ")
    assert len(read_task(written(tmp_path, *lines)).items) == 1


def test_the_scenes_of_the_repository_are_a_task() -> None:
    task = read_task(SCENES)
    assert len(task.items) == 385
    assert len({image for item in task.items for image in item.images}) == 40


def test_a_task_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'.*nowhere' is not a folder"):
        read_task(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"task\.jsonl cannot be read \(No such file"):
        read_task(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_a_task_without_questions_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InputError, match=r"task\.jsonl has no questions"):
        read_task(written(tmp_path, content))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"id": "b", "question": ', "this is no JSON"),
        (b"[" * 100_000, "this is no JSON"),
        (b'["b", "what ?"]', "this is a list; accepted: one JSON object"),
        (b'{"id": "b", "question": "caf\xe9 ?"}', "byte 28 of the line is not UTF-8"),
        ({"question": "what ?"}, "id is missing"),
        ({"id": "", "question": "what ?"}, "id is ''"),
        ({"id": 7, "question": "what ?"}, "id is 7; accepted: a string"),
        ({"id": "a", "question": "what ?"}, "id 'a' is already that of line 1"),
        ({"id": "b"}, "neither is there; accepted: either question or messages"),
        ({"id": "b", "question": "what ?", "messages": [user("what ?")]}, "both are there"),
        ({"id": "b", "question": ["what ?"]}, r"question is \['what \?'\]"),
        ({"id": "b", "question": ""}, "question is ''"),
        ({"id": "b", "messages": []}, r"messages is \[\]"),
        ({"id": "b", "messages": "what ?"}, "messages is 'what \\?'"),
        ({"id": "b", "messages": [{"role": "user"}]}, r"messages\[0\] is .*with role and content"),
        ({"id": "b", "messages": [{**user("a"), "name": "x"}]}, r"messages\[0\] is .*role and"),
        ({"id": "b", "messages": ["what ?"]}, r"messages\[0\] is 'what \?'"),
        ({"id": "b", "messages": [{**user("a"), "role": "tool"}]}, "has role 'tool'; accepted"),
        ({"id": "b", "messages": [user([{"type": "image"}])]}, "has content .*accepted: a string"),
        (
            {"id": "b", "messages": [user("a"), {"role": "assistant", "content": "b"}]},
            "messages end with role 'assistant'",
        ),
        ({**ASKED, "id": "b", "answer": 7}, "answer is 7; accepted"),
        ({**ASKED, "id": "b", "answer": []}, r"answer is \[\]; accepted"),
        ({**ASKED, "id": "b", "answer": ["red", 7]}, "answer is .*list of strings"),
        ({**ASKED, "id": "b", "answer": None}, "answer is None"),
        ({**ASKED, "id": "b", "type": None}, "type is None"),
        ({**ASKED, "id": "b", "info": ["easy"]}, r"info is \['easy'\]; accepted: an object"),
        ({**ASKED, "id": "b", "info": {"scoring": "bleu"}}, "scoring 'bleu'; accepted: exact, vqa"),
        (
            {**ASKED, "id": "b", "info": {"scoring": "vqa"}, "answer": "red"},
            "scoring is 'vqa' with 1 answers; accepted: 4 or more",
        ),
        ({**ASKED, "id": "b", "images": "a.png"}, "images is 'a.png'; accepted: a list"),
        ({**ASKED, "id": "b", "images": [""]}, r"images is \[''\]; accepted: a list"),
        ({**ASKED, "id": "b", "images": ["../a.png"]}, r"'\.\./a\.png' lies outside"),
        ({**ASKED, "id": "b", "images": ["x/../../a.png"]}, "lies outside the folder"),
        ({**ASKED, "id": "b", "images": ["/etc/a.png"]}, "lies outside the folder"),
        ({**ASKED, "id": "b", "images": ["no.png"]}, "image '.*no.png' is not a file"),
        ({**ASKED, "id": "b", "images": ["a\0.png"]}, "is not a file"),
        ({**ASKED, "id": "b", "images": [FILE]}, r"image '.*task.jsonl' cannot be read"),
        ({**ASKED, "id": "b", "anwser": "red"}, "'anwser' is no key .*'answer' was probably meant"),
        ({**ASKED, "id": "b", "level": "easy"}, "'level' is no key of a question; accepted: id"),
    ],
)  # fmt: skip
def test_a_wrong_line_is_refused_by_its_number(
    tmp_path: Path, line: dict[str, Any] | bytes, message: str
) -> None:
    with pytest.raises(InputError, match=rf"task\.jsonl, line 3: .*{message}"):
        read_task(written(tmp_path, ASKED, b"", line))


def test_a_damaged_image_is_found_before_it_is_needed(tmp_path: Path, paint: Paint) -> None:
    image = paint(tmp_path / "a.png")
    content = bytearray(image.read_bytes())
    content[-20] ^= 0xFF
    image.write_bytes(content)
    with pytest.raises(InputError, match=r"line 1: image '.*a\.png' cannot be read"):
        read_task(written(tmp_path, {**ASKED, "images": ["a.png"]}))


TEXT = st.text(min_size=1, max_size=12)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
ITEMS = st.lists(
    st.builds(
        Item,
        id=TEXT,
        images=st.just(()),
        messages=st.lists(
            st.fixed_dictionaries(
                {"role": st.sampled_from(("system", "assistant")), "content": TEXT}
            ),
            max_size=2,
        ).map(lambda earlier: (*earlier, user("why ?"))),
        answers=st.lists(st.text(max_size=8), max_size=4).map(tuple),
        type=TEXT,
        info=st.dictionaries(TEXT.filter(lambda key: key != "scoring"), PLAIN | TEXT, max_size=3),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda item: item.id,
)


@given(ITEMS)
def test_what_was_written_is_read(items: list[Item]) -> None:
    lines = [
        {
            "info": item.info,
            "type": item.type,
            "messages": list(item.messages),
            "id": item.id,
            **({"answer": list(item.answers)} if item.answers else {}),
        }
        for item in items
    ]
    with tempfile.TemporaryDirectory() as folder:
        file = write_task(Path(folder) / "new", lines)
        assert list(read_task(file.parent).items) == items


def test_the_same_lines_in_any_order_of_keys_are_the_same_bytes(tmp_path: Path) -> None:
    line = {**ASKED, "question": "où ?", "info": {"a": 1, "b": 2}}
    turned = {key: line[key] for key in reversed(line)} | {"info": {"b": 2, "a": 1}}
    first, second = write_task(tmp_path / "1", [line]), write_task(tmp_path / "2", [turned])
    expected = '{"id": "a", "question": "où ?", "info": {"a": 1, "b": 2}}\n'
    assert first.read_bytes() == second.read_bytes() == expected.encode()


@pytest.mark.parametrize("line", [{**ASKED, "level": 1}, {**ASKED, "info": {"x": float("nan")}}])
def test_what_cannot_be_written_leaves_the_old_file(tmp_path: Path, line: dict[str, Any]) -> None:
    file = write_task(tmp_path, [ASKED])
    before = file.read_bytes()
    with pytest.raises(InputError):
        write_task(tmp_path, [ASKED, line])
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be made"):
        write_task(tmp_path / "file", [ASKED])
    with pytest.raises(InputError, match="cannot be written"):
        write_lines(tmp_path / "missing" / "records.jsonl", [ASKED])


def test_the_frames_of_a_clip_have_their_seconds(tmp_path: Path, paint: Paint) -> None:
    files = [paint(tmp_path / f"{number}.png") for number in range(3)]
    line = {**ASKED, "images": [file.name for file in files], "seconds": [0, 0.5, 2]}
    (item,) = read_task(written(tmp_path, line)).items
    assert item.seconds == (0.0, 0.5, 2.0) and item.stills == ()
    assert item.frames == tuple(zip((0.0, 0.5, 2.0), files, strict=True))
    clip = task_digest(read_task(tmp_path))
    del line["seconds"]
    (item,) = read_task(written(tmp_path, line)).items
    assert item.stills == tuple(files) and item.frames == ()
    assert task_digest(read_task(tmp_path)) != clip


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        ([0.0], "accepted: a number for each image"),
        ("now", "accepted: a number for each image"),
        (["0", "1"], "accepted: a number for each image"),
        ([True, 2], "accepted: a number for each image"),
        ([1, 1], "accepted: numbers from 0 on that grow"),
        ([-1, 1], "accepted: numbers from 0 on that grow"),
    ],
)
def test_seconds_that_are_no_clips_are_told(
    tmp_path: Path, paint: Paint, seconds: Any, said: str
) -> None:
    for number in range(2):
        paint(tmp_path / f"{number}.png")
    line = {**ASKED, "images": ["0.png", "1.png"], "seconds": seconds}
    with pytest.raises(InputError, match=said):
        read_task(written(tmp_path, line))
