"""A bundle opens whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tightrope import bundle as bundles
from tightrope.bundle import (
    FORMAT,
    MANIFEST,
    Bundle,
    FileEntry,
    Manifest,
    Parity,
    SelectorInfo,
    Source,
    Stage,
)
from tightrope.errors import BundleError, InputError
from tightrope.inputs.vision import VisionInfo
from tightrope.interface.onnx import OWN_OPSET
from tightrope.interface.tensors import Dims
from tightrope.state import state_folder

VOCAB, HIDDEN = 10, 8
CONTENTS = {
    "embeddings.data": bytes(VOCAB * HIDDEN * 2),
    "generation.json": b'{"eos_token_ids": [2]}',
    "graphs/weights.data": bytes(range(200)),
}
Edit = Callable[[dict[str, Any]], object]


def manifest(**changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "format": FORMAT,
        "family": "llava",
        "dims": Dims(
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=2,
            hidden_size=HIDDEN,
            vocab_size=VOCAB,
        ),
        "positions": "ordinal",
        "opset_version": OWN_OPSET,
        "precision": "fp16",
        "activations": "float16",
        "embeddings": "float16",
        "slots": 64,
        "prefill_chunk": 32,
        "minimum_onnxruntime": "1.23",
        "source": Source(name="tiny", revision="sha256:0", licence="unknown"),
        "vision": VisionInfo(
            kind="clip",
            image_token_id=4,
            image_token="<image>",
            resolutions=(56, 28),
            signals=("cls_attention",),
            sizes={"patch_size": 14, "hidden_size": 8, "head_dim": 4},
        ),
        "selectors": {
            "visionzip": SelectorInfo(signals=("cls_attention",), text_guided=False),
        },
        "schedules": {"fastv": (Stage(layer=2, share=1.0),)},
        "parity": Parity(logits=1e-6, allowed=1e-4, equal_tokens=9, tokens=9),
        "files": {
            name: FileEntry(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
            for name, content in CONTENTS.items()
        },
    }
    return Manifest(**values | changes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny.bundle"
    for name, content in CONTENTS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / MANIFEST).write_text(json.dumps(manifest().to_dict()), encoding="utf-8")
    return folder


def rewrite(folder: Path, edit: Edit) -> None:
    values = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    edit(values)
    (folder / MANIFEST).write_text(json.dumps(values), encoding="utf-8")


def test_a_bundle_read_back_equals_what_was_written(folder: Path) -> None:
    opened = Bundle.open(folder)
    assert opened.manifest == manifest()
    assert Manifest.from_dict(opened.manifest.to_dict()) == opened.manifest


@pytest.mark.parametrize("name", CONTENTS)
def test_a_file_cut_by_one_byte_is_named(folder: Path, name: str) -> None:
    (folder / name).write_bytes(CONTENTS[name][:-1])
    with pytest.raises(BundleError, match=rf"{name} has \d+ bytes.*cut short.*export"):
        Bundle.open(folder)


@pytest.mark.parametrize("name", CONTENTS)
@pytest.mark.parametrize("seen", [False, True])
def test_a_file_with_another_byte_is_named(folder: Path, name: str, seen: bool) -> None:
    if seen:
        Bundle.open(folder)
    content = bytearray(CONTENTS[name])
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    os.utime(folder / name, ns=(1, 1))  # a clock too coarse to tell is no excuse here
    with pytest.raises(BundleError, match=rf"{name} is not what was exported.*sha256"):
        Bundle.open(folder)


@pytest.mark.parametrize("put", [Path.mkdir, os.mkfifo, None], ids=["folder", "pipe", "nothing"])
def test_a_missing_file_is_named(folder: Path, put: Callable[[Path], None] | None) -> None:
    file = folder / "graphs/weights.data"
    file.unlink()
    if put is not None:
        put(file)
    with pytest.raises(BundleError, match=r"weights\.data (is missing|has)"):
        Bundle.open(folder)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b"\xff\xfe",
        b'{"format": 2, "opset_version": 2}',
        b"[" * 100_000,
    ],
    ids=["empty", "cut", "list", "null", "no format", "no text", "nothing else", "deep"],
)
def test_a_manifest_that_is_no_manifest_is_damaged(folder: Path, text: bytes) -> None:
    (folder / MANIFEST).write_bytes(text)
    with pytest.raises(BundleError, match=r"bundle\.json is damaged.*export"):
        Bundle.open(folder)


@pytest.mark.parametrize(
    ("found", "way_out"),
    [(FORMAT + 1, "upgrade tightrope"), (0, "export the checkpoint again"), ("1", "export")],
)
def test_another_format_names_the_way_out(folder: Path, found: object, way_out: str) -> None:
    rewrite(folder, lambda values: values.update(format=found))
    with pytest.raises(BundleError, match=rf"has format {found!r}, .*{way_out}"):
        Bundle.open(folder)


@pytest.mark.parametrize("found", [OWN_OPSET + 1, OWN_OPSET - 1, None, "2"])
def test_an_op_set_that_the_reader_does_not_know_is_refused(folder: Path, found: object) -> None:
    rewrite(folder, lambda values: values.update(opset_version=found))
    with pytest.raises(BundleError, match=r"has opset_version .*, this reader knows"):
        Bundle.open(folder)


WRONG_ENTRIES: dict[str, Edit] = {
    "unknown entries": lambda m: m.update(colour="red"),
    "dims has unknown entries": lambda m: m["dims"].update(depth=3),
    "num_hidden_layers": lambda m: m["dims"].pop("num_hidden_layers"),
    "has no slots": lambda m: m.pop("slots"),
    "slots is '64'": lambda m: m.update(slots="64"),
    "slots is 64.0": lambda m: m.update(slots=64.0),
    "slots is True": lambda m: m.update(slots=True),
    "slots is 0": lambda m: m.update(slots=0),
    "dims is None": lambda m: m.update(dims=None),
    "head_dim is -2": lambda m: m["dims"].update(head_dim=-2),
    "vision is 5": lambda m: m.update(vision=5),
    "a clip tower has": lambda m: m["vision"]["sizes"].update(patch_size=0),
    "a clip tower has the sizes": lambda m: m["vision"]["sizes"].pop("head_dim"),
    "of kind 'cloud'": lambda m: m["vision"].update(kind="cloud"),
    "parity: logits is 'low'": lambda m: m["parity"].update(logits="low"),
    "text_guided is 1": lambda m: m["selectors"]["visionzip"].update(text_guided=1),
    "resolutions is 56": lambda m: m["vision"].update(resolutions=56),
    "resolutions is '56'": lambda m: m["vision"].update(resolutions=["56"]),
    r"resolutions are \(\)": lambda m: m["vision"].update(resolutions=[]),
    "resolutions are": lambda m: m["vision"].update(resolutions=[57]),
    "schedules is": lambda m: m.update(schedules=[]),
    "schedule fastv": lambda m: m["schedules"]["fastv"][0].update(layer=4),
    r"windows is \(8,\), there are 4 layers": lambda m: m.update(windows=[8]),
    r"windows is \(0, 8, 0, -1\)": lambda m: m.update(windows=[0, 8, 0, -1]),
    "windows is 'wide'": lambda m: m.update(windows=["wide"]),
    "max_positions is 0": lambda m: m.update(max_positions=0),
    "head_columns is 0, there are 10 tokens": lambda m: m.update(head_columns=0),
    "head_columns is 11": lambda m: m.update(head_columns=11),
    "element type is 'int3'": lambda m: m.update(embeddings="int3"),
    "kv_cache is 'fp8'": lambda m: m.update(kv_cache="fp8"),
    "kv_cache is int8, which no graph of it reads": lambda m: m.update(kv_cache="int8"),
    "minimum_onnxruntime": lambda m: m.update(minimum_onnxruntime="new"),
    "files is": lambda m: m.update(files=[]),
    "weights.data is": lambda m: m["files"].update({"graphs/weights.data": 200}),
    "sha256": lambda m: m["files"]["graphs/weights.data"].pop("sha256"),
    "embeddings.data has 160 bytes, dims say 144": lambda m: m["dims"].update(vocab_size=9),
    "embeddings.data has 160 bytes, dims say 320": lambda m: m.update(embeddings="float32"),
    "embeddings.data has 160 bytes, dims say 176": lambda m: m["vision"].update(separators=1),
    "separators is -1": lambda m: m["vision"].update(separators=-1),
    "image_token_id is .10,., there are 10": lambda m: m["vision"].update(image_token_id=10),
    "row is .3, 10.": lambda m: m["vision"].update(ids={"row": [3, 10]}),
}


@pytest.mark.parametrize("said", WRONG_ENTRIES)
def test_an_entry_that_no_export_writes_is_named(folder: Path, said: str) -> None:
    rewrite(folder, WRONG_ENTRIES[said])
    with pytest.raises(BundleError, match=rf"bundle\.json is damaged: .*{said}"):
        Bundle.open(folder)


@pytest.mark.parametrize(
    "name", ["../outside", "graphs/../../outside", "/etc/hostname", "./x", "a//b", ".", "..", ""]
)
def test_a_file_name_cannot_lead_out_of_the_bundle(folder: Path, name: str) -> None:
    (folder.parent / "outside").write_bytes(b"secret")
    rewrite(folder, lambda values: values["files"].update({name: {"bytes": 6, "sha256": ""}}))
    with pytest.raises(BundleError, match="leads out of the bundle"):
        Bundle.open(folder)


def test_a_file_that_the_manifest_does_not_list_is_not_handed_out(folder: Path) -> None:
    (folder / "extra.json").write_text("{}", encoding="utf-8")
    with pytest.raises(BundleError, match=r"has no extra\.json"):
        Bundle.open(folder).file("extra.json")


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff"])
def test_a_json_file_that_is_none_is_named(folder: Path, content: bytes) -> None:
    (folder / "generation.json").write_bytes(content)
    entry = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    rewrite(folder, lambda values: values["files"].update({"generation.json": entry}))
    with pytest.raises(BundleError, match=r"generation\.json"):
        Bundle.open(folder).read_json("generation.json")


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, None], ids=["folder", "file", "nothing"])
def test_what_is_no_bundle_says_so(tmp_path: Path, make: Callable[[Path], None] | None) -> None:
    other = tmp_path / "other"
    if make is not None:
        make(other)
    with pytest.raises(BundleError, match=r"other (has no bundle\.json|does not exist)"):
        Bundle.open(other)


@pytest.mark.parametrize("path", [None, 5, b"x.bundle", ""])
def test_what_is_no_path_is_an_input_error(path: Any) -> None:
    with pytest.raises(InputError, match="path is"):
        Bundle.open(path)


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were hashed."""
    names: list[str] = []
    whole = bundles.sha256_of

    def counted(file: Path) -> str:
        names.append(file.name)
        return whole(file)

    monkeypatch.setattr("tightrope.bundle.bundle.sha256_of", counted)
    return names


def test_files_are_hashed_on_first_sight_and_when_asked(folder: Path, hashed: list[str]) -> None:
    Bundle.open(folder)
    assert len(hashed) == len(CONTENTS)
    Bundle.open(folder)
    assert len(hashed) == len(CONTENTS)
    Bundle.open(folder, verify=True)
    assert len(hashed) == 2 * len(CONTENTS)


def test_a_file_that_was_replaced_is_hashed_again(folder: Path, hashed: list[str]) -> None:
    Bundle.open(folder)
    hashed.clear()
    file = folder / "embeddings.data"
    shutil.copy2(file, folder / "copy")
    (folder / "copy").replace(file)  # same bytes, same time, another inode
    Bundle.open(folder)
    assert hashed == ["embeddings.data"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"embeddings.data": 5}', '{"x": [1]}'])
def test_a_stale_or_damaged_stamp_costs_a_hash_and_no_more(
    folder: Path, hashed: list[str], text: str
) -> None:
    Bundle.open(folder)
    hashed.clear()
    (state_folder(folder) / "stamp.json").write_text(text, encoding="utf-8")
    Bundle.open(folder)
    assert len(hashed) == len(CONTENTS)
    Bundle.open(folder)
    assert len(hashed) == len(CONTENTS)


def test_opening_leaves_the_bundle_itself_alone(folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    Bundle.open(folder)
    assert sorted(folder.rglob("*")) == before


def test_where_nothing_can_be_written_every_opening_hashes(
    folder: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    for name in ("mkdir", "write_text", "replace", "unlink"):
        monkeypatch.setattr(Path, name, refuse)
    monkeypatch.setenv("TIGHTROPE_STATE", str(folder.parent / "state"))
    for _ in range(2):
        Bundle.open(folder)
    assert len(hashed) == 2 * len(CONTENTS)
    assert not (folder.parent / "state").exists()


def test_where_the_parent_cannot_be_written_stamps_go_to_the_users_state(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(os, "access", lambda *_: False)
    Bundle.open(folder)
    assert len(list((tmp_path / "home" / "tightrope").glob("*/stamp.json"))) == 1


def test_many_may_open_a_bundle_at_once(folder: Path) -> None:
    problems: list[Exception] = []
    start = threading.Barrier(8)

    def open_it() -> None:
        start.wait()
        try:
            for _ in range(10):
                Bundle.open(folder)
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    stamps = json.loads((state_folder(folder) / "stamp.json").read_text(encoding="utf-8"))
    assert set(stamps) == set(CONTENTS)
    assert [file.name for file in state_folder(folder).iterdir()] == ["stamp.json"]
