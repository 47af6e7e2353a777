"""What a board installs is there as wheels, told by a package index alone.

The runtime's whole closure is resolved for the Pythons of JetPack 6 and 7 on their processor; what
has no wheel is built on the board, and the README says so.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
BOARDS = {"3.10": "aarch64-manylinux_2_35", "3.12": "aarch64-manylinux_2_39"}
"""Python -> the C library of the Ubuntu that JetPack 6 (22.04) and JetPack 7 (24.04) are."""
BUILT_ON_THE_BOARD = ("pycuda", "sdnotify")
"""Published as source alone: JetPack has the CUDA headers for one, the other is pure Python."""
PINS = ROOT / "jetson" / "pins"


def resolve(requirements: list[str], python: str, *more: str) -> subprocess.CompletedProcess[str]:
    """What a package index has for a board, from wheels alone."""
    return subprocess.run(
        [
            sys.executable, "-m", "uv", "pip", "compile", "-", "--quiet", "--no-config",
            "--no-header", "--no-annotate", "--only-binary", ":all:", "--python-version", python,
            "--python-platform", BOARDS[python], *more,
        ],
        input="\n".join(requirements),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "UV_NATIVE_TLS": "1", "UV_HTTP_TIMEOUT": "60"},
    )  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def index() -> None:
    """Skips where no package index can be reached."""
    pytest.importorskip("uv", reason="resolving for another machine needs uv")
    found = resolve(["mdurl==0.1.2"], "3.10")
    if found.returncode:
        pytest.skip(f"no package index can be reached: {found.stderr.strip()[-200:]}")


def of_a_board() -> list[str]:
    """The runtime's requirements with what it runs on, extras of this package written out."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    return [*project["dependencies"], *extras["cpu"], *extras["serve"], *extras["jetson"]]


def name_of(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower()


@pytest.mark.parametrize("python", sorted(BOARDS))
def test_every_wheel_of_the_runtime_is_there(python: str) -> None:
    wanted = [line for line in of_a_board() if name_of(line) not in BUILT_ON_THE_BOARD]
    found = resolve(wanted, python)
    assert found.returncode == 0, found.stderr
    pinned = {line.partition("==")[0].lower() for line in found.stdout.splitlines()}
    named = {name_of(line) for line in wanted} - ({"tomli"} if python != "3.10" else set())
    assert named <= pinned
    assert len(pinned) > len(named), "the closure has more than what is named"


@pytest.mark.parametrize("python", sorted(BOARDS))
@pytest.mark.parametrize("name", BUILT_ON_THE_BOARD)
def test_what_has_no_wheel_is_said_in_the_readme(name: str, python: str) -> None:
    (requirement,) = (line for line in of_a_board() if name_of(line) == name)
    found = resolve([requirement], python)
    assert found.returncode != 0, f"{name} has a wheel now: take it from BUILT_ON_THE_BOARD"
    assert "wheel" in found.stderr.lower()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.search(rf"`{name}`[^.]*built on the board", readme)


def pins_of(python: str) -> list[str]:
    """What is installed on a board with this Python, name==version."""
    lines = (PINS / f"python{python}.txt").read_text(encoding="utf-8").splitlines()
    return [line.strip().lower() for line in lines if line.strip() and not line.startswith("#")]


@pytest.mark.parametrize("python", sorted(BOARDS))
def test_the_pins_of_a_board_are_the_whole_closure(python: str) -> None:
    """With them nothing is left open, and none of them is for something else."""
    wanted = [line for line in of_a_board() if name_of(line) not in BUILT_ON_THE_BOARD]
    file = str(PINS / f"python{python}.txt")
    # What pycuda needs besides, which an index tells only to who builds it.
    found = resolve([*wanted, "pytools", "platformdirs", "mako"], python, "--constraint", file)
    assert found.returncode == 0, found.stderr
    resolved = {line.strip().lower() for line in found.stdout.splitlines() if "==" in line}
    built = {pin for pin in pins_of(python) if name_of(pin) in BUILT_ON_THE_BOARD}
    assert {name_of(pin) for pin in built} == set(BUILT_ON_THE_BOARD)
    assert resolved == set(pins_of(python)) - built


@pytest.mark.parametrize(("jetpack", "python"), [("6", "3.10"), ("7", "3.12")])
def test_a_container_is_made_of_what_is_in_the_checkout(jetpack: str, python: str) -> None:
    file = ROOT / "jetson" / "containers" / f"jetpack{jetpack}.Dockerfile"
    text = file.read_text(encoding="utf-8")
    copied = [name for line in re.findall(r"^COPY (.*) \S+$", text, re.M) for name in line.split()]
    assert copied and all((ROOT / name).exists() for name in copied)
    assert f"/src/tightrope/jetson/pins/python{python}.txt" in text
    assert '"/src[cpu,serve,jetson]"' in text
