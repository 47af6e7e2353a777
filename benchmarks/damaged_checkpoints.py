"""Damaged GGUF files and Hugging Face folders, read as export reads them before it traces."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from damage import Random, damage_bytes, damage_value, one_of

Attempt = tuple[str, Callable[[], object]]
COUNTS = (0, 1, 7, 255, 2**16, 10**9, 2**31, 2**32, 2**40, 2**62, 2**63, 2**64 - 1)
PROCESSOR, CONFIG = "processor_config.json", "config.json"
TEXTS = (CONFIG, CONFIG, "tokenizer.json", "tokenizer_config.json", "generation_config.json")


def _read(source: Path, folder: Path) -> None:
    """Export `source` as far as the beginning of its tracing, where it is found to be readable."""
    from tightrope.errors import TightropeError
    from tightrope.export import export as exporting
    from tightrope.export.config import ExportConfig

    class Reached(TightropeError):
        pass

    def reached(*_: object) -> None:
        raise Reached

    with mock.patch.object(exporting, "trace_all", reached):
        try:
            exporting.export(source, folder / "out.bundle", ExportConfig(precision="fp32"))
        except Reached:
            return
        finally:
            left = [name for name in os.listdir(folder) if "bundle" in name]
            assert not left, f"left behind: {left}"


def gguf(rng: Random, bases: Path, folder: Path) -> Attempt:
    """A GGUF file with a damaged header, name, count or text, or one that is cut short."""
    source = one_of(rng, sorted(bases.glob("*.gguf")))
    content = source.read_bytes()
    way = rng.random()
    if way < 0.35:
        how, content = damage_bytes(rng, content, min(len(content), 60_000))
    elif way < 0.5:
        at, size = one_of(rng, ((4, "<I"), (8, "<Q"), (16, "<Q")))
        how, content = _patched(content, at, size, one_of(rng, COUNTS))
    else:
        how, content = _beside_a_name(rng, content)
    named = [*["model.gguf"] * 12, "model.GGUF", "model-00001-of-00003.gguf", "x.bin"]
    file = folder / one_of(rng, named)
    file.write_bytes(content)
    return f"{source.stem} as {file.name}: {how}", lambda: _read(file, folder)


def _patched(content: bytes, at: int, kind: str, number: int) -> tuple[str, bytes]:
    filling = struct.pack(kind, number % 256 ** struct.calcsize(kind))
    return f"{number} at {at}", content[:at] + filling + content[at + len(filling) :]


NAMES = (
    b"general.architecture", b"general.alignment", b".block_count", b".embedding_length",
    b".attention.head_count", b".attention.head_count_kv", b".rope.freq_base", b".vocab_size",
    b"tokenizer.ggml.tokens", b"tokenizer.ggml.token_type", b"tokenizer.ggml.merges",
    b"tokenizer.ggml.pre", b"tokenizer.ggml.model", b"eos_token_id", b"bos_token_id",
    b"token_embd.weight", b"output_norm.weight", b"blk.0.attn_q.weight", b"blk.1.ffn_down.weight",
)  # fmt: skip


def _beside_a_name(rng: Random, content: bytes) -> tuple[str, bytes]:
    """Numbers around the name of a key or tensor: its length, its type, what follows."""
    names = [name for name in NAMES if name in content]
    name = one_of(rng, names)
    start = content.index(name)
    end = start + len(name)
    offset = int(rng.integers(0, 40))
    ways: list[Callable[[], tuple[str, bytes]]] = [
        lambda: _patched(content, start - 8, "<Q", one_of(rng, COUNTS)),
        lambda: _patched(content, end, "<I", int(rng.integers(0, 40))),
        lambda: _patched(content, end + 4, "<Q", one_of(rng, COUNTS)),
        lambda: _patched(content, end + 4, "<I", int(rng.integers(0, 40))),
        lambda: _patched(content, end + offset, "<I", int(one_of(rng, COUNTS)) % 2**32),
        lambda: ("another name", content[:start] + rng.bytes(len(name)) + content[end:]),
        lambda: ("a twin's name", content[: end - 1] + b"x" + content[end:]),
    ]
    how, damaged = one_of(rng, ways)()
    return f"{name.decode()}: {how}", damaged


def folder(rng: Random, bases: Path, target: Path) -> Attempt:
    """A Hugging Face folder with a damaged text or damaged weights."""
    kind = one_of(rng, ("llama", "qwen2", "llava", "llava"))
    copy = Path(shutil.copytree(bases / kind, target / "checkpoint"))
    texts = [name for name in (*TEXTS, PROCESSOR, PROCESSOR) if (copy / name).is_file()]
    way = rng.random()
    if way < 0.4:
        how = _safetensors(rng, copy / "model.safetensors")
    elif way < 0.5:
        how = _pickled(rng, copy, target / "ran")
    else:
        file = copy / one_of(rng, texts)
        if rng.random() < 0.75:
            said, value = damage_value(rng, json.loads(file.read_bytes()))
            file.write_text(json.dumps(value))
        else:
            said, content = damage_bytes(rng, file.read_bytes())
            file.write_bytes(content)
        how = f"{file.name}: {said}"

    def read() -> None:
        try:
            _read(copy, target)
        finally:
            assert not (target / "ran").exists(), "code of the checkpoint ran"

    return f"{kind} {how}", read


def _safetensors(rng: Random, file: Path) -> str:
    content = file.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    way = rng.random()
    if way < 0.3:
        how, content = damage_bytes(rng, content, length + 8)
    elif way < 0.45:
        how, content = _patched(content, 0, "<Q", one_of(rng, COUNTS))
    else:
        header = json.loads(content[8 : 8 + length])
        if rng.random() < 0.5:
            how, header = damage_value(rng, header)
        else:
            how = _entry(rng, header)
        text = json.dumps(header).encode()
        content = struct.pack("<Q", len(text)) + text + content[8 + length :]
    file.write_bytes(content)
    return f"model.safetensors: {how}"


def _entry(rng: Random, header: dict[str, Any]) -> str:
    """One tensor's entry says something else of it."""
    name = one_of(rng, [name for name in header if name != "__metadata__"])
    start, end = header[name]["data_offsets"]
    changes: dict[str, Any] = {
        "dtype": one_of(rng, ("F64", "BF16", "I64", "F8_E4M3", "BOOL", "ZAP", "", 3, None)),
        "shape": one_of(rng, ([], [0], [-1], [2**40, 2**40], [1.5], "x", [[1]], [end - start])),
        "data_offsets": one_of(
            rng, ([end, start], [start, end + 4], [start + 4, end + 4], [0, 2**62], [-4, end], [0])
        ),
    }
    key = one_of(rng, list(changes))
    header[name][key] = changes[key]
    return f"{name} has {key} {changes[key]!r}"


class _Runs:
    """What a pickle should never be allowed to be."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self._file),)


def _pickled(rng: Random, copy: Path, ran: Path) -> str:
    import torch
    from safetensors.torch import load_file

    stored: Any = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    file = copy / "pytorch_model.bin"
    names = sorted(stored)
    contents: dict[str, Any] = {
        "that runs code": {**stored, "zap": _Runs(ran)},
        "of one tensor less": {name: stored[name] for name in names[1:]},
        "of no dictionary": [stored[name] for name in names],
        "with a number in it": {**stored, names[0]: 3},
        "with text in it": {**stored, names[0]: "x"},
        "with another type": {**stored, names[0]: stored[names[0]].to(torch.int64)},
        "sparse": {**stored, names[0]: torch.eye(4).to_sparse()},
    }
    how = one_of(rng, [*contents, "damaged", "plain"])
    torch.save(contents.get(how, stored), file)
    if how == "damaged":
        said, content = damage_bytes(rng, file.read_bytes())
        file.write_bytes(content)
        how = f"damaged, {said}"
    elif how == "plain":
        file.write_bytes(pickle.dumps(_Runs(ran)))
        how = "that is a plain pickle"
    return f"pytorch_model.bin {how}"
