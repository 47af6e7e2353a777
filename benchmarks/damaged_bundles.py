"""Damaged bundles, whose hashes are right again, and what is asked of a whole one wrongly.

Each kind returns what is wrong with an input, and how it is tried.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
import time
import zipfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import PIL.Image
from damage import NUMBERS, VALUES, Random, damage_bytes, damage_value, one_of

import tightrope as tr
from tightrope.bundle import MANIFEST, Bundle
from tightrope.runtime.loaded import Loaded
from tightrope.runtime.selftest import steps as selftest

Attempt = tuple[str, Callable[[], object]]
PICTURE = PIL.Image.fromarray(
    np.arange(40 * 30 * 3, dtype=np.uint32).astype(np.uint8).reshape(30, 40, 3)
)
TEXTS = ("preprocessor.json", "generation.json", "tokenizer.json", "chat_template.jinja")
GRAPHS_AND_ARRAYS = ("graphs", "positions.npz", "selftest.npz", "embeddings.data")


def bundle(rng: Random, bases: Path, folder: Path) -> Attempt:
    """One file of a bundle is damaged, and stands in the manifest as it is now."""
    copy = Path(shutil.copytree(bases / "llava.bundle", folder / "damaged.bundle"))
    part = one_of(rng, (MANIFEST, *TEXTS, *TEXTS, *GRAPHS_AND_ARRAYS))
    name = part
    if part == "graphs":
        names = sorted(f"graphs/{file.name}" for file in (copy / "graphs").iterdir())
        name = one_of(rng, [name for name in names if "host" in name or "weights" in name])
    file = copy / name
    content = file.read_bytes()
    if name == "tokenizer.json" and rng.random() < 0.4:
        how, content = _other_part(rng, content)
    elif name == "preprocessor.json" and rng.random() < 0.3:
        how, content = _larger(rng, content)
    elif name.endswith(".json") and rng.random() < 0.7:
        how, value = damage_value(rng, json.loads(content))
        content = json.dumps(value).encode()
    elif name.endswith(".npz") and rng.random() < 0.7:
        how, content = _damage_arrays(rng, content)
    elif name.endswith(".onnx") and rng.random() < 0.5:
        how, content = _damage_graph(rng, content)
    else:
        how, content = damage_bytes(rng, content)
    file.write_bytes(content)
    if name != MANIFEST:
        manifest = json.loads((copy / MANIFEST).read_bytes())
        digest = hashlib.sha256(content).hexdigest()
        manifest["files"][name] = {"bytes": len(content), "sha256": digest}
        (copy / MANIFEST).write_text(json.dumps(manifest))
    return f"{name}: {how}", lambda: _use(copy)


def _use(folder: Path) -> None:
    """Everything that a bundle is for."""
    Bundle.open(folder, verify=True)
    model = tr.load(folder, "onnxruntime", threads=1, live=False)
    model.generate("What is it?", [PICTURE], max_tokens=3)
    model.generate("and?", max_tokens=2, point=tr.OperatingPoint(kv_budget=40))
    if selectors := list(model.bundle.manifest.selectors):
        model.generate("?", [PICTURE], max_tokens=1, point=tr.OperatingPoint(
            selector=selectors[0], keep=4
        ))  # fmt: skip
    model.chat().ask("Hello", max_tokens=1)
    loaded = Loaded(model.bundle, model.backend, time.perf_counter)
    selftest.compare(loaded, selftest.stored(model.bundle))


PARTS: tuple[tuple[str, Any], ...] = (
    ("model", {"type": "WordLevel", "vocab": {"cup": 0}, "unk_token": "<none>"}),
    ("model", {"type": "Unigram", "unk_id": None, "vocab": [["a", -1.0]]}),
    ("normalizer", {"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
    ("normalizer", {"type": "Replace", "pattern": {"String": ""}, "content": "x"}),
    ("pre_tokenizer", {"type": "Split", "pattern": {"Regex": "(a|aa|b)+$|(((.*)*)*)*x"},
                       "behavior": "Isolated", "invert": False}),
    ("decoder", {"type": "Strip", "content": "a", "start": 2**40, "stop": 2**40}),
    ("truncation", {"direction": "Right", "max_length": 0, "strategy": "LongestFirst",
                    "stride": 5}),
)  # fmt: skip
"""Of a tokenizer.json: valid by themselves, and no good where they stand."""


def _other_part(rng: Random, content: bytes) -> tuple[str, bytes]:
    part, value = one_of(rng, PARTS)
    return f"{part} is a {value.get('type')}", json.dumps(
        {**json.loads(content), part: value}
    ).encode()


def _larger(rng: Random, content: bytes) -> tuple[str, bytes]:
    edge = int(one_of(rng, (1 << 12, 1 << 13, 1 << 14)))
    changes = {"size": {"shortest_edge": edge}, "do_pad": True, "background": [0, 0, 0]}
    return f"images become {edge} pixels", json.dumps({**json.loads(content), **changes}).encode()


def _claiming(rng: Random, name: str) -> bytes:
    """An archive of one array that claims more numbers than it has."""
    array, packed = io.BytesIO(), io.BytesIO()
    shape = (int(one_of(rng, (10**7, 10**10, 10**12))), int(one_of(rng, (1, 32, 2**31))))
    described = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(array, described)
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(f"{name}.npy", array.getvalue() + b"\0" * 16)
    return packed.getvalue()


def _damage_arrays(rng: Random, content: bytes) -> tuple[str, bytes]:
    with np.load(io.BytesIO(content)) as stored:
        arrays: dict[str, Any] = {name: stored[name] for name in stored}
    name = one_of(rng, list(arrays))
    array = arrays.pop(name)
    if rng.random() < 0.15:
        return f"{name} claims more than it has", _claiming(rng, name)
    changes: dict[str, Callable[[], Any]] = {
        "left out": lambda: None,
        "of float64": lambda: array.astype(np.float64),
        "of complex numbers": lambda: array.astype(np.complex64),
        "of text": lambda: np.array(["a", "b"]),
        "of dates": lambda: np.zeros(array.shape, "M8[s]"),
        "of objects": lambda: np.array([{"a": 1}], object),
        "of records": lambda: np.zeros(array.shape, [("a", "f4")]),
        "big-endian": lambda: array.astype(array.dtype.newbyteorder(">")),
        "by columns": lambda: np.asfortranarray(array),
        "flat": lambda: array.reshape(-1),
        "shorter": lambda: array[:0],
        "longer": lambda: np.concatenate([array.reshape(-1)] * 3),
        "a single number": lambda: np.float32(1),
        "not finite": lambda: array * np.float32("nan"),
        "huge": lambda: np.zeros(30_000_000, np.float64),
    }
    how = one_of(rng, list(changes))
    if (changed := changes[how]()) is not None:
        arrays[one_of(rng, (name, name, name, f"{name}0", "zap"))] = changed
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return f"{name} is {how}", stream.getvalue()


def _damage_graph(rng: Random, content: bytes) -> tuple[str, bytes]:
    import onnx

    model = onnx.ModelProto.FromString(content)
    graph = model.graph
    stored = [tensor for tensor in graph.initializer if tensor.external_data]
    node = one_of(rng, graph.node)
    way = int(rng.integers(9))
    if way == 0 and stored:
        entry = one_of(rng, one_of(rng, stored).external_data)
        entry.value = str(
            one_of(rng, ("/etc/passwd", "../../x", -1, 2**62, 10**30, "", "a\0b", 4097))
        )
        return f"external data: {entry.key} is {entry.value!r}", model.SerializeToString()
    if way == 1 and graph.initializer:
        tensor = one_of(rng, graph.initializer)
        tensor.dims[:] = [int(one_of(rng, (-1, 0, 1, 2**40, 2**62)))] * int(rng.integers(1, 4))
        return f"{tensor.name} has dims {list(tensor.dims)}", model.SerializeToString()
    if way == 2:
        node.op_type = one_of(rng, ("Zap", "Add", "Loop", "If", "MatMul", "Cast", ""))
        return f"{node.name} is a {node.op_type}", model.SerializeToString()
    if way == 3 and node.input:
        node.input[int(rng.integers(len(node.input)))] = one_of(
            rng, ("", "nowhere", node.output[0])
        )
        return f"{node.name} reads what is not there", model.SerializeToString()
    if way == 4 and node.attribute:
        attribute = one_of(rng, node.attribute)
        attribute.i = int(one_of(rng, (-1, 0, 7, 2**62)))
        return f"{node.name}: {attribute.name} is {attribute.i}", model.SerializeToString()
    row = one_of(rng, [*graph.input, *graph.output])
    if way == 8:
        old, row.name = row.name, "zap"
        for node in graph.node:
            for names in (node.input, node.output):
                names[:] = ["zap" if name == old else name for name in names]
        return f"{old} is called zap throughout", model.SerializeToString()
    if way == 5:
        row.name = one_of(rng, ("", "zap", "é\0", "x" * 5000))
        return f"a row is called {row.name[:9]!r}", model.SerializeToString()
    if way == 6 and row.type.tensor_type.shape.dim:
        dim = one_of(rng, row.type.tensor_type.shape.dim)
        dim.dim_value = int(one_of(rng, (-1, 0, 1, 3, 2**62)))
        return f"{row.name} has an axis of {dim.dim_value}", model.SerializeToString()
    row.type.tensor_type.elem_type = int(rng.integers(24))
    return f"{row.name} is of type {row.type.tensor_type.elem_type}", model.SerializeToString()


def image(rng: Random, bases: Path, folder: Path) -> Attempt:
    """A damaged or hostile picture, in each of the forms in which pictures are handed in."""
    way = rng.random()
    if way < 0.2:
        how, source = _no_picture(rng, folder)
    else:
        form = one_of(
            rng, ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "ICO", "TGA", "JPEG2000")
        )
        how, encoded = damage_bytes(rng, _encoded(form, rng))
        how = f"{form} {how}"
        source = _handed_in(rng, encoded, folder)
    return f"image {how} as {type(source).__name__}", lambda: _show(bases, source)


def _encoded(form: str, rng: Random) -> bytes:
    modes = ("RGB", "RGB", "L", "P", "1") if form in ("PNG", "GIF", "BMP", "TIFF") else ("RGB",)
    stream = io.BytesIO()
    PICTURE.convert(one_of(rng, modes)).save(stream, form)
    return stream.getvalue()


def _handed_in(rng: Random, encoded: bytes, folder: Path) -> Any:
    form = int(rng.integers(4))
    if form == 0:
        return encoded
    text = base64.b64encode(encoded).decode()
    if form == 1:
        return f"data:image/png;base64,{text}"
    if form == 2:
        return text
    file = folder / "picture"
    file.write_bytes(encoded)
    return one_of(rng, (file, str(file)))


def _no_picture(rng: Random, folder: Path) -> tuple[str, Any]:
    pipe, loop = folder / "pipe", folder / "loop"
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    closed = PICTURE.copy()
    closed.close()
    header = bytearray(_encoded("BMP", rng))
    header[18:26] = np.array([2**30, 2**30], "<i4").tobytes()
    sources: dict[str, Any] = {
        "a pipe": pipe, "a device": "/dev/zero", "a loop": loop, "a folder": folder,
        "closed": closed, "claims 2^60 pixels": bytes(header), "nothing": b"", "a NUL": "a\0b",
        "long": "x" * 10**6, "a URL": "http://127.0.0.1:9/x.png", "no base64": "data:;base64,%%%",
        "an empty data URL": "data:,", "a bare data URL": "data:", "bytes": bytearray(b"x"),
        "of floats": np.zeros((4, 4, 3)), "channels first": np.zeros((3, 9, 9), np.uint8),
        "of no rows": np.zeros((0, 4, 3), np.uint8), "a line": np.zeros((1, 9000, 3), np.uint8),
        "of objects": np.full((2, 2, 3), None), "sixteen bits": PIL.Image.new("I;16", (9, 9)),
        "LAB": PIL.Image.new("LAB", (9, 9)), "F": PIL.Image.new("F", (9, 9)),
        "CMYK": PIL.Image.new("CMYK", (9, 9)), "empty": PIL.Image.new("RGB", (0, 0)),
        "a value": one_of(rng, VALUES), "a number": one_of(rng, NUMBERS),
    }  # fmt: skip
    how = one_of(rng, list(sources))
    return f"that is {how}", sources[how]


def _show(bases: Path, source: Any) -> None:
    _whole(bases).generate("What is it?", [source], max_tokens=1)


def _whole(bases: Path) -> tr.Model:
    return tr.load(bases / "llava.bundle", "onnxruntime", threads=1, live=False)


TALK: list[dict[str, Any]] = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]},
    {
        "role": "assistant",
        "content": None,
        "reasoning": "I look it up.",
        "tool_calls": [
            {"type": "function", "id": "a", "function": {"name": "f", "arguments": {"x": 1}}}
        ],
    },
    {"role": "tool", "tool_call_id": "a", "name": "f", "content": "a dog"},
    {"role": "assistant", "content": "A dog.", "audio": None, "refusal": None},
    {"role": "user", "content": "Of which kind?"},
]


def messages(rng: Random, bases: Path, folder: Path) -> Attempt:
    """A conversation in which one to three places are damaged."""
    talk: Any = TALK[int(rng.integers(len(TALK))) :] if rng.random() < 0.5 else TALK
    how = []
    for _ in range(int(rng.integers(1, 4))):
        said, talk = damage_value(rng, talk)
        how.append(said)
    shown = [PICTURE] * int(rng.integers(3))
    return f"messages: {'; '.join(how)}", lambda: _whole(bases).generate(talk, shown, max_tokens=1)


def _odd(rng: Random) -> Any:
    """What no JSON has."""
    endless: list[Any] = []
    endless.append(endless)
    return one_of(rng, (
        *VALUES, object(), b"\xff", {1}, range(3), endless, lambda: 1, np.float32(1), np.int64(3),
        np.array([1, 2]), np.array([[1.5]]), 1j, Ellipsis, int, Path("/"), iter([1]), "9" * 5000,
        10**5000, -(10**5000), [10**20], ["a"] * 3, {"a": "b"}, float("-inf"), "50%", "nan%",
    ))  # fmt: skip


POINT = ("selector", "keep", "resolution", "kv_budget", "policy", "sinks", "recent")
ASKED = ("max_tokens", "temperature", "top_p", "n", "seed", "stop", "ignore_eos", "point", "images")


def arguments(rng: Random, bases: Path, folder: Path) -> Attempt:
    """One or two arguments of the public calls are something else."""
    path, value = bases / "llava.bundle", _odd(rng)
    call = one_of(rng, ("load", "ask", "ask", "ask", "point", "point", "chat", "system", "command"))
    if call == "load":
        name = one_of(rng, ("path", "backend", "threads"))
        given = {"path": path, "backend": "onnxruntime", "threads": 1, name: value}
        return _said("load", {name: value}), lambda: tr.load(**given)
    if call == "command":
        return _command(rng, path)
    if call == "system":
        return _said(
            "chat", {"system": value}
        ), lambda: _whole(bases).chat(value).ask("a", max_tokens=1)
    if call == "point":
        chosen = {name: _odd(rng) for name in {one_of(rng, POINT), one_of(rng, POINT)}}
        if rng.random() < 0.7:
            chosen = {"selector": "uniform", "keep": 4, **chosen}
        return _said("point", chosen), lambda: _whole(bases).generate(
            "a", [PICTURE], max_tokens=2, point=tr.OperatingPoint(**chosen)
        )
    asked = [name for name in ASKED if name != "n" or call == "ask"]
    options = {one_of(rng, asked): value, "prompt": "a"}
    if rng.random() < 0.2:
        options["prompt"] = _odd(rng)
    options.setdefault("max_tokens", 2)
    prompt = options.pop("prompt")
    said = _said(call, {**options, "prompt": prompt})
    if call == "chat":
        return said, lambda: _whole(bases).chat().ask(prompt, **options)
    return said, lambda: _whole(bases).generate(prompt, **options)


def _said(call: str, given: dict[str, Any]) -> str:
    try:
        return f"{call} with {', '.join(f'{name}={value!r}'[:60] for name, value in given.items())}"
    except ValueError:  # integers of more digits than Python writes
        return f"{call} with {', '.join(given)} too long to be written"


COMMANDS = (
    ["run", "BUNDLE", "ODD"], ["run", "ODD", "a"], ["run", "BUNDLE", "a", "--image", "ODD"],
    ["run", "BUNDLE", "a", "--selector", "uniform", "--keep", "ODD"], ["inspect", "ODD"],
    ["run", "BUNDLE", "a", "--kv-budget", "ODD"], ["run", "BUNDLE", "a", "--stop", "ODD"],
    ["run", "BUNDLE", "a", "--temperature", "ODD"], ["methods", "ODD"], ["bench", "ODD"],
    ["export", "ODD", "-o", "ODD"], ["build", "ODD"], ["task", "show", "ODD"], ["ODD"],
)  # fmt: skip


def _command(rng: Random, path: Path) -> Attempt:
    from tightrope import cli

    odd = one_of(rng, [value for value in VALUES if isinstance(value, str)])
    words = [{"BUNDLE": str(path), "ODD": odd}.get(word, word) for word in one_of(rng, COMMANDS)]
    if "run" in words and "a" in words:
        words += ["--max-tokens", "2"]

    def call() -> None:
        said = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="backslashreplace")
        with mock.patch("sys.argv", ["tightrope", *words]), redirect_stderr(said):
            try:
                with redirect_stdout(io.StringIO()):
                    cli.main()
            except SystemExit as ended:
                said.seek(0)
                text = said.read()
                if ended.code not in (0, None) and ("internal error" in text or not text):
                    raise AssertionError(f"exit code {ended.code}: {text[:300]}") from ended
                if ended.code not in (0, None):
                    raise tr.InputError(text) from ended

    return f"tightrope {' '.join(words)}"[:200].replace(str(path), "BUNDLE"), call
