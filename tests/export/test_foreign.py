"""No error of a dependency leaves export: each documented class, thrown where it may come from."""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

torch = pytest.importorskip("torch", reason="exporting needs torch")

import gguf  # noqa: E402
import jinja2  # noqa: E402
import PIL.Image  # noqa: E402
import safetensors  # noqa: E402
import transformers  # noqa: E402
from onnxruntime.capi import onnxruntime_pybind11_state as ort  # noqa: E402

from tightrope.errors import InputError, TightropeError, UnsupportedModel  # noqa: E402
from tightrope.export import export as exporting  # noqa: E402
from tightrope.export import parity  # noqa: E402
from tightrope.export.config import ExportConfig  # noqa: E402
from tightrope.export.export import export  # noqa: E402
from tightrope.export.foreign import reading  # noqa: E402
from tightrope.export.graphs.write import Written  # noqa: E402
from tightrope.foreign import words  # noqa: E402

Find = Callable[[str], Path]

FOREIGN: list[Exception] = [
    safetensors.SafetensorError("header too large"),
    Exception("tokenizers raises this class alone"),
    jinja2.TemplateSyntaxError("unexpected end", 3),
    jinja2.UndefinedError("x is undefined"),
    jinja2.exceptions.SecurityError("access to _ is unsafe"),
    PIL.UnidentifiedImageError("cannot identify image file"),
    PIL.Image.DecompressionBombError("too many pixels"),
    ort.Fail("failed"),
    ort.InvalidGraph("no such op"),
    ort.InvalidArgument("rank"),
    ort.NoSuchFile("file"),
    pickle.UnpicklingError("weights only"),
    json.JSONDecodeError("Expecting value", "x", 0),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    struct.error("unpack requires 8 bytes"),
    KeyError("general.architecture"),
    IndexError("list index out of range"),
    ValueError("several\nlines\n  of it"),
    TypeError("no"),
    AttributeError("no"),
    RuntimeError("PytorchStreamReader failed"),
    NotImplementedError(),
    AssertionError(),
    OverflowError("int too large"),
    RecursionError("maximum recursion depth exceeded"),
    StopIteration(),
    EOFError(),
    ImportError("no module"),
    OSError(5, "Input/output error"),
    PermissionError(13, "Permission denied"),
    torch.OutOfMemoryError("out of memory"),
]


@pytest.mark.parametrize("error", FOREIGN, ids=repr)
def test_what_a_library_raises_while_reading_is_ours(error: Exception) -> None:
    with (
        pytest.raises(UnsupportedModel, match=r"^x cannot be read: .+; do this$") as raised,
        reading("x cannot be read", "do this"),
    ):
        raise error
    assert raised.value.__cause__ is error
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("error", [UnsupportedModel("a"), InputError("b"), MemoryError("c")])
def test_our_own_and_a_full_memory_pass(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, reading("x"):
        raise error
    assert raised.value is error
    with pytest.raises(KeyboardInterrupt), reading("x"):
        raise KeyboardInterrupt


def test_an_error_that_says_nothing_is_named() -> None:
    assert words(NotImplementedError()) == "NotImplementedError"
    assert words(KeyError("a")) == "'a' is missing"
    assert len(words(ValueError("x" * 9999))) == 500


PLACES: dict[str, tuple[str, object, str]] = {
    "the config": ("llama", transformers.AutoConfig, "from_pretrained"),
    "the tokenizer": ("llama", transformers.AutoTokenizer, "from_pretrained"),
    "the model": ("llama", transformers.PreTrainedModel, "from_pretrained"),
    "the tracing": ("llama", exporting, "trace_all"),
    "the graphs": ("llama", exporting, "write_graphs"),
    "the host's files": ("llama", exporting, "write_host_files"),
    "the parity": ("llama", parity, "measure"),
    "a GGUF file": ("gguf", gguf, "GGUFReader"),
    "a GGUF tensor": ("gguf", gguf, "dequantize"),
    "a GGUF tokenizer": ("gguf", transformers, "PreTrainedTokenizerFast"),
    "a GGUF config": ("gguf", transformers.AutoConfig, "for_model"),
    "a GGUF model": ("gguf", transformers.AutoModelForCausalLM, "from_config"),
}


@pytest.mark.parametrize("error", [RuntimeError("a"), KeyError("b"), ort.Fail("c"), ValueError()])
@pytest.mark.parametrize("place", PLACES)
def test_wherever_it_is_raised_nothing_is_left_and_the_error_is_ours(
    checkpoint: Find,
    gguf_files: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    error: Exception,
) -> None:
    name, owner, attribute = PLACES[place]
    if name == "gguf":
        keys = gguf_files.metadata_of(gguf_files.byte_level(["<|end|>"], 280))
        model = gguf_files.model_of(gguf_files.config_of("llama"))
        source = gguf_files.file_of(tmp_path / "m.gguf", model, keys)
    else:
        source = checkpoint(name)

    def throw(*_: object, **__: object) -> None:
        raise error

    if owner is not exporting or attribute != "trace_all":
        monkeypatch.setattr(exporting, "trace_all", lambda *_: {})
    if attribute != "write_graphs":
        monkeypatch.setattr(exporting, "write_graphs", lambda *_: Written())
    monkeypatch.setattr(owner, attribute, throw)
    target = tmp_path / "bundles" / "x.bundle"
    with pytest.raises(TightropeError) as raised:
        export(source, target, ExportConfig(precision="fp32"))
    assert "\n" not in str(raised.value)
    assert not target.parent.exists() or not list(target.parent.iterdir())
