"""Kernels as a board finds them: what describes a launch fits what is launched."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import pytest

from tightrope.errors import BackendError
from tightrope.plugins.expressions import evaluate
from tightrope.plugins.kernels import cubin
from tightrope.plugins.kernels.launch import COMPILED, Launch, load_launch

SHIPPED = sorted((int(file.parent.name[3:]), file.stem) for file in COMPILED.glob("sm_*/*.json"))


def test_every_kernel_is_there_for_the_boards() -> None:
    names = ("commit", "commit_int8", "likeliest")
    assert [(sm, name) for sm in (87, 110) for name in names] == SHIPPED


@pytest.mark.parametrize(("sm", "name"), SHIPPED)
def test_a_description_fits_its_cubin(sm: int, name: str) -> None:
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


def described(folder: Path, of: str = "sm_87", arguments: int = 3, unused: int = 2) -> Path:
    """The kernel of sm_87 with another cubin, or with another number of arguments described."""
    copied(folder)
    home, image = folder / "sm_87", COMPILED.joinpath(of, "commit.cubin").read_bytes()
    (home / "commit.cubin").write_bytes(image)
    told = json.loads((home / "commit.json").read_text())
    told |= {"cubin_sha256": hashlib.sha256(image).hexdigest(), "unused_pointers": unused}
    told["arguments"] = told["arguments"][:arguments]
    (home / "commit.json").write_text(json.dumps(told))
    return folder


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"of": "sm_110"}, r"its cubin is for sm_110, the description for sm_87"),
        (
            {"arguments": 2},
            r"its cubin takes arguments of \[8, 4, 4, 8, 8\] bytes, .* says \[8, 4, 8, 8\]",
        ),
        ({"unused": 0}, "its cubin has scratch pointers, the description was stripped of them"),
        ({"unused": 4}, "scratch pointers were stripped from its cubin, the description has them"),
    ],
)
def test_a_cubin_that_is_not_the_one_described_is_refused_by_what_differs(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(BackendError, match=f"commit.json is damaged: {said}"):
        load_launch("commit", 87, described(tmp_path, **changes))


def test_a_kernel_of_another_name_and_what_is_no_cubin_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="there is no kernel scatter in its cubin"):
        load_launch("commit", 87, copied(tmp_path, kernel="scatter"))
    with pytest.raises(ValueError, match="it is no cubin"):
        cubin.compute_capability(b"\x7fELF\x01")
