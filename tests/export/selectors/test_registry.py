"""The table of selectors: complete, light to import, and consistent."""

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir
import pytest

import tightrope.export.selectors as selectors
from tightrope.budget import keep_count
from tightrope.export.check import check_graph, check_operators
from tightrope.export.selectors import SELECTORS, Selector
from tightrope.plugins.baselines import BASELINES

SHARED = {"__init__", "selector", "steps"}
SIGNALS = {"cls_attention", "tower_keys", "tower_states"}
HEAVY = ("torch", "onnx", "onnx_ir", "onnxruntime", "transformers")


def test_every_file_of_the_folder_has_its_entry() -> None:
    assert selectors.__file__ is not None
    files = {file.stem for file in Path(selectors.__file__).parent.glob("*.py")}
    assert files - SHARED == set(SELECTORS)


def test_every_method_has_its_tests() -> None:
    tested = {file.stem.removeprefix("test_") for file in Path(__file__).parent.glob("test_*.py")}
    graphs = {name for name, selector in SELECTORS.items() if selector.body}
    assert graphs <= tested


@pytest.mark.parametrize("selector", SELECTORS.values(), ids=list(SELECTORS))
def test_an_entry_says_everything(selector: Selector) -> None:
    assert SELECTORS[selector.name] is selector
    assert set(selector.signals) <= SIGNALS
    assert 1 <= keep_count(selector.default_keep, 576) < 576
    if selector.body:
        assert selector.acts == "before the language model"
        assert selector.reference and not selector.indices and "arXiv:" in selector.paper
    else:
        assert selector.acts == "baseline"
        assert selector.indices is BASELINES[selector.name]


GRAPHS = [name for name, selector in SELECTORS.items() if selector.body]
RANGES = {
    "I": (1, 1, 4),
    "V": (16, 576, 576),
    "P": (17, 577, 577),
    "K": (1, 72, 575),
    "T": (1, 20, 128),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_the_oldest_parser_knows_every_operator(
    name: str, standard_graph: Callable[[str], ir.Model]
) -> None:
    check_operators(name, standard_graph(name))


@pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="TensorRT for RTX is not installed"
)
@pytest.mark.parametrize("name", GRAPHS)
def test_tensorrt_builds_the_graph(
    name: str, standard_graph: Callable[[str], ir.Model], tmp_path: Path
) -> None:
    ir.save(standard_graph(name), tmp_path / "select.onnx")
    done = check_graph(name, tmp_path / "select.onnx", RANGES)
    assert done.ok, done.message


def test_importing_the_table_loads_nothing_heavy() -> None:
    code = (
        "import sys, tightrope.export.selectors\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
