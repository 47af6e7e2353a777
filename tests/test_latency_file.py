"""Latency files: read back as written, refused where they do not belong, moved aside if damaged."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tightrope.errors import ProfileError
from tightrope.latency_file import latency_file, read_latency, write_latency


@pytest.fixture
def bundle(tmp_path: Path) -> Any:
    return SimpleNamespace(path=tmp_path / "x.bundle")


@pytest.fixture
def written(bundle: Any, synthetic: Any) -> Path:
    file = write_latency(bundle, synthetic.RECORD)
    assert file.name == "orin_nano_8gb-25w-onnxruntime-2.json"
    assert file.parent.parent.name == "x.state"
    return file


def edited(file: Path, change: Callable[[Any], None]) -> None:
    values = json.loads(file.read_text(encoding="utf-8"))
    change(values)
    file.write_text(json.dumps(values), encoding="utf-8")


def test_a_record_is_read_back_as_it_was_written(
    bundle: Any, synthetic: Any, written: Path
) -> None:
    assert read_latency(bundle, synthetic.KEY) == synthetic.RECORD
    assert [path.name for path in written.parent.iterdir()] == [written.name]
    assert json.loads(written.read_text(encoding="utf-8"))["schema"] == 1


def test_where_none_was_made_the_command_is_named(
    bundle: Any, synthetic: Any, written: Path
) -> None:
    with pytest.raises(ProfileError) as error:
        read_latency(bundle, replace(synthetic.KEY, power_mode="15W"))
    for words in ("power mode 15W", "orin_nano_8gb-25w-onnxruntime-2", "--latency-only"):
        assert words in str(error.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bundle", "cd" * 32),
        ("board", "Orin NX 16GB"),
        ("power_mode", "7W"),
        ("backend", "tensorrt"),
        ("threads", 6),
    ],
)
def test_a_file_of_something_else_is_refused_and_stays(
    bundle: Any, synthetic: Any, name: str, value: Any
) -> None:
    file = write_latency(bundle, replace(synthetic.RECORD, key=synthetic.KEY))
    edited(file, lambda values: values["key"].update({name: value}))
    before = file.read_bytes()
    with pytest.raises(ProfileError, match=f"was measured for {name} .*--latency-only"):
        read_latency(bundle, synthetic.KEY)
    assert file.read_bytes() == before


def test_a_file_of_another_schema_is_refused_and_stays(
    bundle: Any, synthetic: Any, written: Path
) -> None:
    edited(written, lambda values: values.update(schema=99))
    with pytest.raises(ProfileError, match="schema 99"):
        read_latency(bundle, synthetic.KEY)
    assert written.exists()


def spoil(change: Callable[[Any], None]) -> Callable[[Path], object]:
    return lambda file: edited(file, change)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "half": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "empty": lambda file: file.write_bytes(b""),
    "no text": lambda file: file.write_bytes(b"\xff\xfe\x00"),
    "a list": lambda file: file.write_text("[1]", encoding="utf-8"),
    "a number": lambda file: file.write_text("7", encoding="utf-8"),
    "deep": lambda file: file.write_text("[" * 100_000, encoding="utf-8"),
    "no schema": spoil(lambda values: values.pop("schema")),
    "a part missing": spoil(lambda values: values["model"].pop("hosting")),
    "a leaf missing": spoil(lambda values: values["model"]["hosting"].pop("token_ms")),
    "an unknown entry": spoil(lambda values: values["model"].update(mood=1.0)),
    "a text for a number": spoil(lambda values: values["model"]["hosting"].update(token_ms="1")),
    "a whole number": spoil(lambda values: values["model"]["hosting"].update(token_ms=1)),
    "negative": spoil(lambda values: values["model"]["hosting"].update(token_ms=-1.0)),
    "no number": spoil(lambda values: values["model"]["stepping"].update(slot_ms=float("nan"))),
    "few ratios": spoil(lambda values: values["model"]["ttft"]["ratios"].pop()),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_moved_aside_and_said_and_nothing_else_is_lost(
    bundle: Any, synthetic: Any, written: Path, damage: str
) -> None:
    other = write_latency(bundle, replace(synthetic.RECORD, key=replace(synthetic.KEY, threads=4)))
    DAMAGES[damage](written)
    spoilt = written.read_bytes()
    with pytest.raises(ProfileError, match=r"is damaged .*damaged-1; .*--latency-only"):
        read_latency(bundle, synthetic.KEY)
    aside = written.with_name(f"{written.name}.damaged-1")
    assert aside.read_bytes() == spoilt
    assert sorted(path.name for path in written.parent.iterdir()) == sorted(
        [aside.name, other.name]
    )
    with pytest.raises(ProfileError, match="no latency was measured"):
        read_latency(bundle, synthetic.KEY)
    assert read_latency(bundle, replace(synthetic.KEY, threads=4)).key.threads == 4


def test_a_second_damage_leaves_the_first_one_where_it_is(
    bundle: Any, synthetic: Any, written: Path
) -> None:
    for number in (1, 2):
        written.write_text(f"damage {number}", encoding="utf-8")
        with pytest.raises(ProfileError, match=f"damaged-{number}"):
            read_latency(bundle, synthetic.KEY)
    kept = [written.with_name(f"{written.name}.damaged-{number}") for number in (1, 2)]
    assert [file.read_text(encoding="utf-8") for file in kept] == ["damage 1", "damage 2"]


def test_a_full_disk_leaves_the_old_file(
    bundle: Any, synthetic: Any, written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = written.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ProfileError, match=r"was not written .*No space left"):
        write_latency(bundle, replace(synthetic.RECORD, points=3))
    assert written.read_bytes() == before
    assert list(written.parent.iterdir()) == [written]


def test_a_path_that_is_no_folder_is_an_error_of_ours(bundle: Any, synthetic: Any) -> None:
    folder = latency_file(bundle, synthetic.KEY).parent
    folder.parent.mkdir()
    folder.write_text("in the way", encoding="utf-8")
    with pytest.raises(ProfileError, match="was not written"):
        write_latency(bundle, synthetic.RECORD)
    with pytest.raises(ProfileError, match="cannot be read"):
        read_latency(bundle, synthetic.KEY)
