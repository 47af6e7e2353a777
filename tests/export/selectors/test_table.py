"""The table of selectors: complete, light to import, and consistent."""

import subprocess
import sys
from pathlib import Path

import pytest

import tightrope.export.selectors as selectors
from tightrope.export.selectors import SELECTORS, Selector
from tightrope.interface.tensors import CLS_ATTENTION, TOWER_KEYS, TOWER_STATES
from tightrope.point import keep_count

SHARED = {"__init__", "selector", "steps"}
SIGNALS = {CLS_ATTENTION, TOWER_KEYS, TOWER_STATES}
HEAVY = ("torch", "onnx", "onnx_ir", "onnxruntime", "transformers")


def test_every_file_of_the_folder_has_its_entry() -> None:
    assert selectors.__file__ is not None
    files = {file.stem for file in Path(selectors.__file__).parent.glob("*.py")}
    assert files - SHARED == set(SELECTORS)


def test_every_method_has_its_tests() -> None:
    tested = {file.stem.removeprefix("test_") for file in Path(__file__).parent.glob("test_*.py")}
    assert set(SELECTORS) <= tested


@pytest.mark.parametrize("selector", SELECTORS.values(), ids=list(SELECTORS))
def test_an_entry_says_everything(selector: Selector) -> None:
    assert SELECTORS[selector.name] is selector
    assert set(selector.signals) <= SIGNALS
    assert 1 <= keep_count(selector.default_keep, 576) < 576
    assert "arXiv:" in selector.paper


def test_importing_the_table_loads_nothing_heavy() -> None:
    code = (
        "import sys, tightrope.export.selectors\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
