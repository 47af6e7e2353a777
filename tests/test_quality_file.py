"""Quality files: read whole, refused where they do not belong, moved aside if damaged."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tightrope.errors import ProfileError
from tightrope.point import OperatingPoint
from tightrope.profiles.quality.store import opened
from tightrope.quality_file import (
    Outcome,
    QualityKey,
    find_quality,
    point_of,
    point_text,
    quality_file,
    read_qualities,
)

KEY = QualityKey(
    bundle="ab" * 32, task="cd" * 32, task_name="My Scenes", measure="accuracy", max_tokens=64
)
HIGH, LOW = OperatingPoint(resolution=336), OperatingPoint(resolution=168, thinking_tokens=0)
PROMPT = (3, 1, 4)


def outcome(question: str, score: float = 1.0) -> Outcome:
    return Outcome(
        question=question,
        score=score,
        token_agreement=0.5,
        text="<think> é </think> red",
        completion_tokens=3,
        thinking_tokens=1,
        finish_reason="stop",
    )


@pytest.fixture
def bundle(tmp_path: Path) -> Any:
    return SimpleNamespace(path=tmp_path / "x.bundle", digest=KEY.bundle)


@pytest.fixture
def written(bundle: Any) -> Path:
    with opened(bundle, KEY) as store:
        for question in ("b", "a"):
            store.add(HIGH, outcome(question), PROMPT, (5, 7))
            store.add(LOW, outcome(question, 0.25), PROMPT)
        store.leave(LOW, HIGH)
    return store.file


def test_all_is_read_back_as_it_was_written(bundle: Any, written: Path) -> None:
    assert written == quality_file(bundle, KEY)
    assert written.name == "my_scenes-cdcdcdcdcdcd.sqlite"
    (found,) = read_qualities(bundle)
    assert found.key == KEY
    assert [point.point for point in found.points] == [HIGH, LOW]
    assert [point.beaten_by for point in found.points] == [None, HIGH]
    assert found.points[1].outcomes == (outcome("a", 0.25), outcome("b", 0.25))
    assert found.prompts == {"a": PROMPT, "b": PROMPT}
    assert [path.name for path in written.parent.iterdir()] == [written.name]


def test_a_file_without_prompts_is_read_and_gone_on_with(bundle: Any, written: Path) -> None:
    with contextlib.closing(sqlite3.connect(written)) as database:
        database.execute("DROP TABLE prompts")
    (found,) = read_qualities(bundle)
    assert len(found.points) == 2 and found.prompts == {}
    with opened(bundle, KEY) as store:
        store.add(HIGH, outcome("c"), PROMPT)
    assert read_qualities(bundle)[0].prompts == {"c": PROMPT}


def test_the_only_task_need_not_be_named(bundle: Any, written: Path) -> None:
    assert find_quality(bundle, None) == find_quality(bundle, "My Scenes")
    with pytest.raises(ProfileError, match=r"no quality was measured by task 'other'.*My Scenes"):
        find_quality(bundle, "other")
    with opened(bundle, replace(KEY, task="ef" * 32, task_name="other")):
        pass
    with pytest.raises(ProfileError, match="My Scenes, other; name the task"):
        find_quality(bundle, None)
    assert find_quality(SimpleNamespace(path=Path("nowhere.bundle")), None) is None  # type: ignore[arg-type]


def test_a_file_of_another_bundle_is_refused_and_stays(bundle: Any, written: Path) -> None:
    bundle.digest = "12" * 32
    before = written.read_bytes()
    with pytest.raises(ProfileError, match=r"measured of bundle abababababab.*121212121212"):
        read_qualities(bundle)
    assert written.read_bytes() == before


def edited(file: Path, *statements: str) -> None:
    with sqlite3.connect(file) as database:
        for statement in statements:
            database.execute(statement)
    database.close()


def test_a_file_of_another_schema_is_refused_and_stays(bundle: Any, written: Path) -> None:
    edited(written, "UPDATE about SET value = '99' WHERE name = 'schema'")
    with pytest.raises(ProfileError, match="has schema 99"):
        read_qualities(bundle)
    assert written.exists()


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "cut": cut,
    "empty": lambda file: os.truncate(file, 0),
    "no database": lambda file: file.write_text("{}" * 4000, encoding="utf-8"),
    "zeros": lambda file: file.write_bytes(bytes(file.stat().st_size)),
    "no tables": lambda file: edited(file, "DROP TABLE outcomes"),
    "no key": lambda file: edited(file, "DELETE FROM about WHERE name = 'task'"),
    "key": lambda file: edited(file, "UPDATE about SET value = 'x' WHERE name = 'max_tokens'"),
    "measure": lambda file: edited(file, "UPDATE about SET value = 'x' WHERE name = 'measure'"),
    "point": lambda file: edited(file, "UPDATE points SET point = '{\"keep\": 0}' WHERE id = 1"),
    "json": lambda file: edited(file, "UPDATE points SET point = '[' WHERE id = 1"),
    "winner": lambda file: edited(file, "UPDATE points SET beaten_by = 77 WHERE id = 1"),
    "lost point": lambda file: edited(file, "DELETE FROM points WHERE id = 1"),
    "score": lambda file: edited(file, "UPDATE outcomes SET score = 'much'"),
    "share": lambda file: edited(file, "UPDATE outcomes SET token_agreement = 3"),
    "text": lambda file: edited(file, "UPDATE outcomes SET text = x'00ff'"),
    "count": lambda file: edited(file, "UPDATE outcomes SET completion_tokens = -1"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_moved_aside_and_measured_anew(
    bundle: Any, written: Path, damage: str
) -> None:
    DAMAGES[damage](written)
    content = written.read_bytes()
    with pytest.raises(ProfileError, match=r"is damaged .*moved to .*\.damaged-1; measure again"):
        read_qualities(bundle)
    assert written.with_name(f"{written.name}.damaged-1").read_bytes() == content
    assert read_qualities(bundle) == ()


def test_a_damaged_file_does_not_stop_a_profile_which_says_so(bundle: Any, written: Path) -> None:
    cut(written)
    with opened(bundle, KEY) as store:
        assert store.outcomes == {}
        (note,) = store.notes
        store.add(HIGH, outcome("a"), PROMPT)
    assert "damaged-1" in note
    assert written.with_name(f"{written.name}.damaged-1").exists()
    assert len(read_qualities(bundle)[0].points) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bundle": "12" * 32}, "measured of bundle"),
        ({"task": "ef" * 32}, "measured with task cdcdcdcdcdcd.*here it is efefefefefef"),
        ({"measure": "agreement"}, "measured with measure 'accuracy', here it is 'agreement'"),
        ({"max_tokens": 65}, "measured with max_tokens 64, here it is 65"),
        ({"task_name": "my scenes"}, "measured with task_name 'My Scenes'"),
    ],
)
def test_a_profile_of_something_else_is_refused(
    bundle: Any, written: Path, change: dict[str, Any], message: str
) -> None:
    before = written.read_bytes()
    key: QualityKey = replace(KEY, **change)
    bundle.digest = key.bundle
    with pytest.raises(ProfileError, match=message), opened(bundle, key):
        pass
    assert written.read_bytes() == before
    assert list(written.parent.iterdir()) == [written]


def test_a_profile_goes_on_where_it_was(bundle: Any, written: Path) -> None:
    with opened(bundle, KEY) as store:
        assert set(store.outcomes) == {HIGH, LOW}
        assert store.outcomes[LOW]["b"] == outcome("b", 0.25)
        assert store.beaten == {LOW: HIGH}
        assert store.unpruned == {"a": (5, 7), "b": (5, 7)}
        store.add(HIGH, outcome("c"), PROMPT)
        before = store.quality()
    (found,) = read_qualities(bundle)
    assert {point.point: set(point.outcomes) for point in found.points} == {
        point.point: set(point.outcomes) for point in before.points
    }
    assert len(found.points[0].outcomes) == 3


def test_types_of_questions_are_kept_beside_their_outcomes(bundle: Any, written: Path) -> None:
    with opened(bundle, KEY) as store:
        store.name_types({"a": "colour", "b": "count"})
        store.name_types({"b": "digit"})
        assert store.quality().types == {"a": "colour", "b": "digit"}
    assert read_qualities(bundle)[0].types == {"a": "colour", "b": "digit"}
    edited(written, "UPDATE questions SET type = x'00ff'")
    with pytest.raises(ProfileError, match="is damaged"):
        read_qualities(bundle)


def test_a_file_from_before_there_were_types_is_read_and_gets_them(
    bundle: Any, written: Path
) -> None:
    edited(written, "DROP TABLE questions")
    assert read_qualities(bundle)[0].types == {}
    with opened(bundle, KEY) as store:
        store.name_types({"a": "colour"})
    (found,) = read_qualities(bundle)
    assert found.types == {"a": "colour"} and len(found.points) == 2


FILL = """
import resource, sys
from pathlib import Path
from types import SimpleNamespace
from tightrope.errors import ProfileError
from tightrope.point import OperatingPoint
from tightrope.profiles.quality.store import opened
from tightrope.quality_file import Outcome, QualityKey

key = QualityKey(bundle="ab" * 32, task="cd" * 32, task_name="t", measure="accuracy", max_tokens=64)
with opened(SimpleNamespace(path=Path(sys.argv[1]), digest=key.bundle), key) as store:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    try:
        for number in range(1000):
            store.add(OperatingPoint(), Outcome(question=str(number), score=1.0, text="x" * 400,
                completion_tokens=1, thinking_tokens=0, finish_reason="stop"), (1, 2))
    except ProfileError as error:
        print(number, error)
"""


def test_what_was_measured_before_the_disk_was_full_stays(bundle: Any) -> None:
    told = subprocess.run(
        [sys.executable, "-c", FILL, str(bundle.path)], capture_output=True, text=True, check=True
    ).stdout
    kept, message = told.split(" ", 1)
    assert int(kept) > 50
    for words in ("t-cdcdcdcdcdcd.sqlite", "cannot be written", "stays", "TIGHTROPE_STATE"):
        assert words in message
    key = replace(KEY, task_name="t")
    (found,) = read_qualities(bundle)
    assert {one.question for one in found.points[0].outcomes} == set(map(str, range(int(kept))))
    with opened(bundle, key) as store:
        store.add(OperatingPoint(), outcome(kept), PROMPT)
    assert len(read_qualities(bundle)[0].points[0].outcomes) == int(kept) + 1


def test_a_folder_that_cannot_be_written_is_named(bundle: Any) -> None:
    (bundle.path.parent / "x.state").write_text("in the way", encoding="utf-8")
    with pytest.raises(ProfileError, match="cannot be written"), opened(bundle, KEY):
        pass


KILLED = """
import os, signal, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("PRAGMA cache_size = 1")  # what does not fit is written before it is committed
database.execute("BEGIN")
database.executemany("INSERT INTO outcomes VALUES (1, ?, 1, 1, ?, 1, 1, 'stop')",
                     [(f"new {number}", "x" * 3000) for number in range(500)])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_kill_left_half_written_is_taken_back(bundle: Any, written: Path) -> None:
    before = read_qualities(bundle)
    size = written.stat().st_size
    subprocess.run([sys.executable, "-c", KILLED, str(written)], check=False)
    assert written.with_name(f"{written.name}-journal").exists()
    assert written.stat().st_size > size, "nothing was written half"
    assert read_qualities(bundle) == before


def test_a_damaged_file_takes_its_journal_along(bundle: Any, written: Path) -> None:
    journal = written.with_name(f"{written.name}-journal")
    written.write_bytes(b"no database" * 1000)
    journal.write_bytes(b"half of something")
    with pytest.raises(ProfileError, match="moved to"):
        read_qualities(bundle)
    assert not journal.exists() and not written.exists()


@pytest.mark.parametrize("point", [OperatingPoint(), HIGH, LOW, OperatingPoint(kv_budget=(4, 5))])
def test_a_point_is_its_text(point: OperatingPoint) -> None:
    assert point_of(point_text(point)) == point
