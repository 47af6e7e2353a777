"""Kernels as a board finds them: what describes a launch fits what is launched."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tightrope.errors import BackendError
from tightrope.plugins.kernels.launch import COMPILED, Launch, evaluate, load_launch

HERE = Path(__file__).parent
SHIPPED = sorted((int(file.parent.name[3:]), file.stem) for file in COMPILED.glob("sm_*/*.json"))


@pytest.fixture(scope="module")
def cubin(module_of: Callable[[Path], ModuleType]) -> ModuleType:
    return module_of(HERE / "cubin.py")


def test_every_kernel_is_there_for_the_boards() -> None:
    assert [(sm, name) for sm in (87, 110) for name in ("commit", "likeliest")] == SHIPPED


@pytest.mark.parametrize(("sm", "name"), SHIPPED)
def test_a_description_fits_its_cubin(sm: int, name: str, cubin: ModuleType) -> None:
    launch, image = load_launch(name, sm)
    assert cubin.compute_capability(image) == sm
    sizes = [struct.calcsize(letter) for letter in launch.formats]
    assert cubin.argument_sizes(image, launch.kernel) == sizes
    assert COMPILED.joinpath(f"sm_{sm}/{name}.ptx").read_text().count(".param .u") == len(sizes)


def test_a_launch_is_packed_in_the_kernels_order() -> None:
    launch, _ = load_launch("commit", 87)
    assert launch.blocks({"length": 5, "lanes": 8, "layers": 28}) == (5, 8, 28)
    assert launch.packed({"words": 3, "lanes": 2, "table": 1}) == (1, 2, 3, 0, 0)
    assert (launch.formats, launch.threads) == ("PiiPP", 32)


@pytest.mark.parametrize(
    ("text", "value"), [("n", 7), ("(n + 3) // 4 * 2 - m", 3), ("12", 12), ("n*m", 7)]
)
def test_grid_expressions(text: str, value: int) -> None:
    assert evaluate(text, {"n": 7, "m": 1}) == value


@pytest.mark.parametrize("text", ["n / 2", "n.real", "f(n)", "'a'", "True", "n if n else 1"])
def test_what_is_no_grid_expression(text: str) -> None:
    with pytest.raises(ValueError, match="no expression"):
        evaluate(text, {"n": 7})


def copied(folder: Path, **changes: Any) -> Path:
    """The kernel of sm_87 below `folder`, its description changed."""
    home = folder / "sm_87"
    home.mkdir()
    for file in COMPILED.glob("sm_87/commit.*"):
        (home / file.name).write_bytes(file.read_bytes())
    described = json.loads((home / "commit.json").read_text())
    (home / "commit.json").write_text(json.dumps(described | changes))
    return folder


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sm": 110}, "compiled for sm_110"),
        ({"format": 2}, "format 2, this reader knows 1"),
        ({"cubin_sha256": "0"}, "another one than it describes"),
        ({"arguments": [{"name": "table", "type": "int8"}]}, "type int8"),
        ({"warps": "one"}, "warps"),
    ],
)
def test_a_description_of_something_else_is_refused(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(BackendError, match=said):
        load_launch("commit", 87, copied(tmp_path, **changes))


def test_a_copied_description_is_read(tmp_path: Path) -> None:
    launch, _ = load_launch("commit", 87, copied(tmp_path))
    assert isinstance(launch, Launch)


def test_another_chip_is_told_how_to_compile() -> None:
    with pytest.raises(BackendError, match=r"not compiled for sm_90, only for sm_110, sm_87.*--sm"):
        load_launch("commit", 90)
