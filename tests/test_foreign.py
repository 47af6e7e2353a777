"""Errors of other libraries, thrown at the places that call them: ours come out, and no others."""

from __future__ import annotations

import binascii
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import PIL.Image
import pytest
from onnxruntime.capi import onnxruntime_pybind11_state as ort

from tightrope.bundle import Bundle
from tightrope.checks import check_path, shown
from tightrope.errors import BackendError, BundleError, InputError, TightropeError
from tightrope.foreign import translated, words
from tightrope.runtime import images
from tightrope.runtime.model import Model
from tightrope.runtime.template import ChatTemplate

Find = Callable[[str], Path]

ONNXRUNTIME = (
    ort.Fail, ort.InvalidArgument, ort.NoSuchFile, ort.NoModel, ort.EngineError,
    ort.RuntimeException, ort.InvalidProtobuf, ort.ModelLoaded, ort.NotImplemented,
    ort.InvalidGraph, ort.EPFail,
)  # fmt: skip
FOREIGN: list[Exception] = [
    *(kind("said by ONNX Runtime") for kind in ONNXRUNTIME),
    Exception("tokenizers raises this class alone"),
    jinja2.TemplateSyntaxError("unexpected end", 3),
    jinja2.UndefinedError("x is undefined"),
    jinja2.TemplateNotFound("x"),
    jinja2.TemplateRuntimeError("no filter"),
    jinja2.exceptions.SecurityError("access to _ is unsafe"),
    PIL.UnidentifiedImageError("cannot identify image file"),
    PIL.Image.DecompressionBombError("too many pixels"),
    SyntaxError("broken PNG file"),
    zipfile.BadZipFile("File is not a zip file"),
    zipfile.LargeZipFile("too large"),
    zlib.error("incorrect header check"),
    binascii.Error("Incorrect padding"),
    struct.error("unpack requires 8 bytes"),
    json.JSONDecodeError("Expecting value", "x", 0),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    FileNotFoundError(2, "No such file or directory"),
    PermissionError(13, "Permission denied"),
    IsADirectoryError(21, "Is a directory"),
    NotADirectoryError(20, "Not a directory"),
    BlockingIOError(11, "Resource temporarily unavailable"),
    OSError(28, "No space left on device"),
    TimeoutError("timed out"),
    EOFError(), KeyError("key"), IndexError("index"), ValueError("value"), TypeError("type"),
    AttributeError("attribute"), RuntimeError("run"), NotImplementedError(), AssertionError(),
    OverflowError("int too large"), RecursionError("maximum recursion depth exceeded"),
    StopIteration(), ZeroDivisionError("division by zero"), FloatingPointError(), ImportError("no"),
    UserWarning("a warning that was made an error"),
]  # fmt: skip


def name_of(error: Exception) -> str:
    return f"{type(error).__module__}.{type(error).__name__}"


class Failing:
    """What it wraps, but for one method."""

    def __init__(self, real: Any, method: str, error: Exception) -> None:
        self._real = real
        setattr(self, method, fails(error))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def fails(error: Exception) -> Callable[..., Any]:
    def throw(*_: Any, **__: Any) -> Any:
        raise error

    return throw


@pytest.mark.parametrize("error", FOREIGN, ids=name_of)
def test_each_becomes_ours_and_keeps_its_words(error: Exception) -> None:
    with (
        pytest.raises(BundleError, match=r"^the file is damaged: .+; get it again$") as caught,
        translated(BundleError, "the file is damaged", "get it again"),
    ):
        raise error
    assert caught.value.__cause__ is error and "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [InputError("ours"), MemoryError(), KeyboardInterrupt()])
def test_ours_a_full_memory_and_an_interrupt_pass(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, translated(BundleError, "x", "y"):
        raise error
    assert caught.value is error


class PanicException(BaseException):
    """As pyo3 makes it of a panic of code in Rust; it cannot be imported."""

    __module__ = "pyo3_runtime"


def test_a_panic_of_code_in_rust_is_no_exception_and_becomes_ours() -> None:
    with (
        pytest.raises(BundleError, match=r"^x: index out of bounds; y$"),
        translated(BundleError, "x", "y"),
    ):
        raise PanicException("index out of bounds")


def test_words_are_one_line_and_never_none() -> None:
    assert words(ValueError("a\n  b.")) == "a b"
    assert words(NotImplementedError()) == "NotImplementedError"
    assert words(KeyError("k")) == "'k' is missing"
    assert len(words(ValueError("x" * 10_000))) == 500


@pytest.mark.parametrize("error", FOREIGN, ids=name_of)
@pytest.mark.parametrize("place", ["open", "load"])
def test_pillow(error: Exception, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = PIL.Image.new("RGB", (4, 4))
    if place == "open":
        monkeypatch.setattr(PIL.Image, "open", fails(error))
        source: Any = b"encoded"
    else:
        monkeypatch.setattr(picture, "load", fails(error))
        source = picture
    with pytest.raises(InputError, match="image"):
        images.load_image(source)


@pytest.mark.parametrize("error", FOREIGN, ids=name_of)
def test_templates(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    template: Any = ChatTemplate("{{ messages[0].content }}", {})
    broken = Failing(template._template, "generate", error)
    monkeypatch.setattr(template, "_template", broken)
    with pytest.raises(BundleError, match=r"chat_template\.jinja fails"):
        template.render([{"role": "user", "content": "a"}])


@pytest.mark.parametrize("error", FOREIGN, ids=name_of)
def test_onnxruntime(
    error: Exception, loaded: Callable[[str], Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend: Any = loaded("llama").backend
    monkeypatch.setattr(backend, "_decoder", Failing(backend._decoder, "run", error))
    with pytest.raises(BackendError, match="ONNX Runtime failed"):
        loaded("llama").generate("a", max_tokens=2)


@pytest.mark.parametrize("error", FOREIGN, ids=name_of)
def test_the_tokenizer(
    error: Exception, loaded: Callable[[str], Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    model: Any = loaded("llama")
    ours = model._loaded.language._tokenizer
    monkeypatch.setattr(ours, "_tokenizer", Failing(ours._tokenizer, "encode", error))
    asked = f"a {error!r}"  # what was asked before is not encoded again
    with pytest.raises(BundleError, match=r"tokenizer\.json cannot encode"):
        model.generate(asked, max_tokens=2)


@pytest.mark.parametrize("error", FOREIGN, ids=name_of)
@pytest.mark.parametrize("reader", ["read_json", "read_text", "read_arrays"])
def test_the_files_of_a_bundle(
    error: Exception, reader: str, bundle: Find, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Bundle.open(bundle("llava"))
    name = {"read_arrays": "positions.npz"}.get(reader, "generation.json")
    monkeypatch.setattr(np, "load", fails(error))
    monkeypatch.setattr(Path, "read_text", fails(error))
    with pytest.raises(BundleError, match=f"{name} is damaged"):
        getattr(opened, reader)(name)


NO_PATHS: list[Any] = [
    "x" * 5000,
    "data:image/png;base64," + "A" * 9000,
    "a/" + "b" * 300 + "/c",
    "/".join(["deep"] * 2000),
    "a\0b",
    "\0" * 4000,
    "half a character \ud800",
    "",
    b"bytes",
    None,
    7,
    ["a"],
]


@pytest.mark.parametrize("value", NO_PATHS, ids=lambda value: shown(value)[:20])
def test_what_is_no_path_is_shown_by_its_beginning(value: Any) -> None:
    with pytest.raises(InputError, match="the thing is ") as caught:
        check_path("the thing", value, "a file")
    assert len(str(caught.value)) < 80 + 60 and "\0" not in str(caught.value)


@pytest.mark.parametrize("value", NO_PATHS, ids=lambda value: shown(value)[:20])
def test_no_path_opens_as_a_bundle_an_image_or_a_checkpoint(value: Any, tmp_path: Path) -> None:
    from tightrope.runtime.model import load

    with pytest.raises((InputError, BundleError)) as caught:
        load(value)
    assert len(str(caught.value)) < 250
    if not isinstance(value, bytes):
        with pytest.raises(InputError) as caught:
            images.load_image(value)
        assert len(str(caught.value)) < 300
    pytest.importorskip("torch", reason="exporting needs torch")
    from tightrope.export.export import export

    for source, target in ((value, tmp_path / "b"), (tmp_path, value)):
        with pytest.raises(TightropeError) as caught:
            export(source, target)
        assert len(str(caught.value)) < 300


def test_a_folder_that_may_not_be_entered_is_told(
    bundle: Find, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a user without the right: root, who runs tests in containers, has it everywhere."""
    from tightrope.runtime.model import load

    denied = PermissionError(13, "Permission denied")
    for name in ("is_file", "exists", "stat"):
        with monkeypatch.context() as patch:
            patch.setattr(Path, name, fails(denied))
            with pytest.raises(BundleError, match=r"Permission denied.*permissions"):
                load(bundle("llama"))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "is_file", fails(denied))
        with pytest.raises(InputError, match=r"Permission denied.*permissions"):
            images.load_image("picture.png")
