"""Sessions kept in the state folder: used where they hold, made anew where they do not."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import tightrope as tr
from tightrope.bundle import Bundle
from tightrope.runtime.backends import optimised
from tightrope.runtime.backends.onnxruntime import OnnxRuntimeBackend

Find = Callable[[str], Path]
IDS = [5, 7, 8, 9, 10, 21, 25, 6]


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder, in which small bundles keep their sessions too."""
    monkeypatch.setenv("TIGHTROPE_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(optimised, "_SMALLEST_BYTES", 0)
    return tmp_path / "state" / optimised.FOLDER


def answered(bundle: Path) -> tuple[Any, tuple[str, ...]]:
    answer = tr.load(bundle, threads=1, live=False).generate(IDS, max_tokens=6, ignore_eos=True)
    return answer.token_ids, answer.notes


def kept(state: Path) -> list[Path]:
    return sorted(state.iterdir())


@pytest.mark.parametrize("name", ["llama", "llama-int4"])
def test_a_kept_session_answers_alike_and_is_opened_again(
    name: str, bundle: Find, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = answered(bundle(name))
    (folder,) = kept(state)
    assert sorted(file.name for file in folder.iterdir()) == [
        "model.data",
        "model.onnx",
        "stamp.json",
    ]
    opened: list[str] = []
    plain = optimised._session

    def watched(file: Path, options: Any) -> Any:
        opened.append(file.name)
        return plain(file, options)

    monkeypatch.setattr(optimised, "_session", watched)
    assert answered(bundle(name)) == first == (first[0], ())
    assert opened == ["model.onnx"]


@pytest.mark.parametrize("name", ["llama-fp16", "llama-int4", "llava"])
def test_a_backend_for_once_answers_alike_and_keeps_nothing(
    name: str, bundle: Find, state: Path
) -> None:
    opened = Bundle.open(bundle(name))
    once = tr.Model(opened, OnnxRuntimeBackend(opened, 1, once=True))
    answer = once.generate(IDS, max_tokens=6, ignore_eos=True)
    assert not state.exists()
    assert (answer.token_ids, answer.notes) == answered(bundle(name))


@pytest.mark.parametrize("damage", ["cut", "edited", "no stamp", "foreign stamp", "no model"])
def test_a_damaged_one_is_made_anew_and_said(damage: str, bundle: Find, state: Path) -> None:
    first, _ = answered(bundle("llama"))
    (folder,) = kept(state)
    data, stamp = folder / "model.data", folder / "stamp.json"
    if damage == "cut":
        data.write_bytes(data.read_bytes()[:-64])
    elif damage == "edited":
        data.write_bytes(np.random.default_rng(0).bytes(data.stat().st_size))
    elif damage == "no stamp":
        stamp.unlink()
    elif damage == "foreign stamp":
        stamp.write_text(json.dumps([1, 2]), encoding="utf-8")
    else:
        (folder / "model.onnx").unlink()
    again, notes = answered(bundle("llama"))
    assert again == first
    assert any("damaged and is made anew" in note for note in notes)
    assert answered(bundle("llama")) == (first, ())


def test_one_that_does_not_open_is_left_and_not_tried_again(bundle: Find, state: Path) -> None:
    first, _ = answered(bundle("llama"))
    (folder,) = kept(state)
    (folder / "model.onnx").write_bytes(b"nothing")
    (folder / "stamp.json").write_text(json.dumps(optimised._stamp(folder)), encoding="utf-8")
    again, notes = answered(bundle("llama"))
    assert again == first and any("does not open and is left" in note for note in notes)
    assert answered(bundle("llama")) == (first, ())
    assert [file.name for file in folder.iterdir()] == ["stamp.json"]


def test_one_of_another_release_goes_and_is_said(
    bundle: Find, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = answered(bundle("llama"))
    old = kept(state)
    (state / ".killed").mkdir()
    os.utime(state / ".killed", (0, 0))
    monkeypatch.setattr(onnxruntime, "__version__", "99.1.0")
    again, notes = answered(bundle("llama"))
    assert again == first
    assert any("of another bundle, ONNX Runtime or processor" in note for note in notes)
    assert len(kept(state)) == 1 and kept(state) != old


def test_where_nothing_can_be_kept_the_bundles_own_graph_is_opened(
    bundle: Find, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state.parent.mkdir()
    state.write_text("a file where the folder would be", encoding="utf-8")
    first, notes = answered(bundle("llama"))
    assert notes == () and len(first) == 6
    monkeypatch.setattr(optimised, "_new_folder", lambda kept, needed: kept.parent / "gone")
    again, notes = answered(bundle("llama"))
    assert again == first and any("could not be kept" in note for note in notes)


def test_small_bundles_keep_nothing(
    bundle: Find, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIGHTROPE_STATE", str(tmp_path))
    answered(bundle("llama"))
    assert not (tmp_path / optimised.FOLDER).exists()
