"""What is installed is what the repository holds: wheel and source distribution, tried out."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("cli", "export", "jetson", "plugins", "profiles", "runtime")
# Built by setuptools' own hooks: no network, no second environment.
BUILD = "from setuptools import build_meta; import sys; build_meta.{hook}(sys.argv[1])"

pytestmark = pytest.mark.slow
pytest.importorskip("setuptools", minversion="77")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that git tracks and their links, so that a build writes nothing to the checkout."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        pytest.skip("needs a git checkout to know what belongs to the project")
    folder = tmp_path_factory.mktemp("source")
    for name in listed.stdout.split("\0"):
        left_out = not name or name.startswith(("tests/", "models/reference/"))
        if not left_out and os.path.lexists(ROOT / name):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_symlink():
                (folder / name).symlink_to((ROOT / name).readlink())
            else:
                (folder / name).write_bytes((ROOT / name).read_bytes())
    return folder


def built(source: Path, hook: str, output: Path) -> Path:
    """The file that the build hook leaves in `output`."""
    result = subprocess.run(
        [sys.executable, "-c", BUILD.format(hook=hook), str(output)],
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    (file,) = output.iterdir()
    return file


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(source, "build_wheel", tmp_path_factory.mktemp("wheel"))


_SUFFIXES = (".css", ".cubin", ".html", ".js", ".json", ".npz", ".onnx", ".ptx", ".py", ".toml")


def package_files() -> set[str]:
    """Every file of the package that belongs into a wheel."""
    board = ROOT / "tightrope/jetson/dashboard"  # an operator takes it from a checkout
    found = (
        path
        for path in (ROOT / "tightrope").rglob("*")
        if path.is_file() and board not in path.parents
    )
    return {path.relative_to(ROOT).as_posix() for path in found if path.suffix in _SUFFIXES} | {
        "tightrope/py.typed"
    }


def test_the_wheel_holds_every_file_of_the_package_once_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert wheel.name.endswith("-py3-none-any.whl")
    inside = {name for name in names if ".dist-info/" not in name}
    assert inside == package_files()
    assert len(names) == len(set(names))
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_wheel_states_its_licence_and_its_command(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    texts = {
        name.rpartition("/")[2]: archive.read(name).decode()
        for name in archive.namelist()
        if name.endswith(("METADATA", "entry_points.txt"))
    }
    assert "License-Expression: Apache-2.0" in texts["METADATA"]
    assert "Requires-Python: >=3.10" in texts["METADATA"]
    assert "# Tightrope" in texts["METADATA"]
    assert "tightrope = tightrope.cli:main" in texts["entry_points.txt"]


def test_the_installed_wheel_runs_from_any_folder(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    (tmp_path / "elsewhere").mkdir()

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path / "elsewhere",
            env={**os.environ, "PYTHONPATH": str(site), "TIGHTROPE_DEBUG": ""},
            capture_output=True,
            text=True,
            check=False,
        )

    home = run("-c", "import tightrope; print(tightrope.__file__)")
    assert home.stdout.strip() == str(site / "tightrope" / "__init__.py")
    assert "Commands" in run("-m", "tightrope", "--help").stdout
    assert "snapkv" in run("-m", "tightrope", "methods").stdout
    assert run("-m", "tightrope", "doctor", "--json").stdout.startswith("{")
    boards = run(
        "-c",
        "from tightrope.plugins.parsers import load_parser; load_parser('10.3'); "
        "from tightrope.plugins.kernels.launch import load_launch; load_launch('commit', 87)",
    )
    assert boards.returncode == 0, boards.stderr
    demo = run("-m", "tightrope", "demo")
    assert (demo.returncode, demo.stdout) == (2, "")
    assert "in a clone" in demo.stderr


def test_a_wheel_can_be_built_from_the_source_distribution(
    source: Path, wheel: Path, tmp_path: Path
) -> None:
    (tmp_path / "sdist").mkdir()
    (tmp_path / "wheel").mkdir()
    archive = built(source, "build_sdist", tmp_path / "sdist")
    shutil.unpack_archive(archive, tmp_path / "unpacked")
    (folder,) = (tmp_path / "unpacked").iterdir()
    assert (folder / "README.md").is_file() and (folder / "LICENSE").is_file()
    again = built(folder, "build_wheel", tmp_path / "wheel")
    first, second = (set(zipfile.ZipFile(file).namelist()) for file in (wheel, again))
    assert first == second
