"""The small reader of ONNX files against the onnx package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tightrope.bundle import Bundle
from tightrope.plugins.initializers import Outside, outside

onnx = pytest.importorskip("onnx", reason="the oracle is the onnx package")


@pytest.mark.parametrize("name", ["llama-int4", "llava-fp16"])
def test_every_graph_of_a_bundle_is_read_as_onnx_reads_it(
    name: str, bundle: Callable[[str], Path]
) -> None:
    opened = Bundle.open(bundle(name))
    files = [opened.file(file) for file in opened.manifest.files if file.endswith(".onnx")]
    counts = []
    for file in files:
        expected = []
        for tensor in onnx.load(file, load_external_data=False).graph.initializer:
            entry = {entry.key: entry.value for entry in tensor.external_data}
            if entry:
                place = int(entry["offset"]), int(entry["length"])
                expected.append(Outside(tensor.name, entry["location"], *place))
        assert list(outside(file.read_bytes())) == expected
        counts.append(len(expected))
    assert max(counts) > 10


@pytest.mark.parametrize("content", [b"\x3a\x05\x00", b"\x3b", b"\xff" * 12, b"\x3a"])
def test_a_model_that_is_cut_short_is_told(content: bytes) -> None:
    with pytest.raises(ValueError, match="no ONNX model"):
        list(outside(content))
