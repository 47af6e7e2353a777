"""TensorRT for RTX parses and builds the standard graphs of one small bundle of every family.

And those of SmolLM2; `tests/cli/test_end_to_end.py` builds all of the reference model. A process a
bundle, because it may abort; the selectors' graphs are those of any tower, and are built from one
in `tests/export/test_standard_graphs.py` and from the reference model's.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="exporting needs torch")
pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")

from tightrope.bundle import Bundle
from tightrope.plugins.parsers.bundled import standard_graphs

Find = Callable[[str], Path]
SEEING = (
    *("llava-siglip", "llava-next", "llava-onevision", "smolvlm", "internvl"),
    *("qwen2_5_vl", "qwen3_vl", "gemma3-vl"),
)
PROGRAM = """
import json, sys
from tightrope.export.check.rtx_process import check
for file, ranges in json.load(sys.stdin):
    print(json.dumps(check(file, ranges)), flush=True)
"""


def built(path: Path) -> dict[str, dict[str, Any]]:
    """What became of each graph of a bundle, its selectors' apart."""
    opened = Bundle.open(path)
    names = [name for name in standard_graphs(opened.manifest) if name.role != "select"]
    tasks = [(str(opened.graph(name)), opened.manifest.ranges(name)) for name in names]
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps(tasks),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    lines = run.stdout.splitlines()
    return {str(name): json.loads(line) for name, line in zip(names, lines, strict=True)}


def assert_built(results: dict[str, dict[str, Any]], count: int) -> None:
    refused = {name: told["message"] for name, told in results.items() if not told["ok"]}
    assert refused == {} and len(results) == count


@pytest.mark.slow
def test_text_families_build(text_family: str, bundle: Find) -> None:
    assert_built(built(bundle(text_family)), 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen2", "llama-int4", *SEEING])
def test_other_families_build(name: str, bundle: Find) -> None:
    manifest = Bundle.open(bundle(name)).manifest
    count = 2 + (manifest.vision is not None) + len(manifest.schedules)
    assert_built(built(bundle(name)), count)


@pytest.mark.slow
def test_a_model_of_thirty_layers_builds_of_few(bundle: Find) -> None:
    """SmolLM2 in float16. Of its prefill the parser makes 6,557 layers: a build's time follows."""
    results = built(bundle("smollm2"))
    assert_built(results, 2)
    assert results["standard.prefill"]["layers"] < 7000
