"""`jetson/install.sh` in a Debian of its own with files of a board: `make test-install`.

The Debian knows nothing of a GPU: TensorRT, pycuda and CUDA's headers are empty files there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
DEBIAN, WHEELS = ROOT / ".cache/debian", ROOT / ".cache/debian-wheels"
ORIN = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n"
THOR = "# R38 (release), REVISION: 4.0, GCID: 43443517, BOARD: generic, EABI: aarch64\n"
STATE, SCRIPT = "/var/lib/tightrope", "/srv/checkout/jetson/install.sh"
OFFLINE = (
    "env",
    "PIP_NO_INDEX=1",
    "PIP_FIND_LINKS=/srv/wheels",
    "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
)
PARTS = ("tightrope", "jetson", "pyproject.toml", "README.md", "LICENSE", "constraints.txt")

if os.environ.get("TIGHTROPE_INSTALL") != "1":
    pytest.skip("takes minutes and a Debian: `make test-install`", allow_module_level=True)


@pytest.fixture(scope="module")
def machine(
    module_of: Callable[[Path], ModuleType],
    bundle: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Any]:
    booted = module_of(Path(__file__).parents[1] / "booted.py")
    assert booted.lacking() is None, booted.lacking()
    path = bundle("llama")
    machine = booted.Booted(tmp_path_factory.mktemp("root"), DEBIAN)
    with contextlib.closing(machine):
        root = machine.root
        for name in PARTS:
            source, target = ROOT / name, root / "srv/checkout" / name
            target.parent.mkdir(exist_ok=True)
            if source.is_symlink():
                target.symlink_to(source.readlink())
            elif source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)
        shutil.copytree(WHEELS, root / "srv/wheels")
        machine.copy(path, f"{STATE}/bundles/scene.bundle")
        site = root / "usr/lib/python3/dist-packages"
        (site / "tensorrt.py").write_text('__version__ = "10.3.0"\n')
        (site / "pycuda").mkdir()
        (site / "pycuda/__init__.py").touch()
        (site / "pycuda-2026.1.dist-info").mkdir()
        (site / "pycuda-2026.1.dist-info/METADATA").write_text(
            "Metadata-Version: 2.1\nName: pycuda\nVersion: 2026.1\n"
        )
        (root / "usr/local/cuda/include").mkdir(parents=True)
        (root / "usr/local/cuda/include/cuda.h").touch()
        (root / "dev/nvmap").touch()
        (root / "etc/nv_tegra_release").write_text(ORIN)
        yield machine


def run(machine: Any, *arguments: str) -> Any:
    return machine.run(*OFFLINE, SCRIPT, *arguments, check=False)


def everything(machine: Any) -> str:
    """Path, time and size of all that an installation may touch."""
    return str(
        machine.run(
            "find", "/etc", "/opt", "/usr/local", "/var/lib/tightrope",
            "-not", "-path", "*/__pycache__*", "-not", "-path", "/etc/systemd/system",
            "-printf", "%p %T@ %s %l\n",
        ).stdout
    )  # fmt: skip


@pytest.mark.parametrize(
    ("release", "words"),
    [
        (None, "this is no Jetson"),
        ("# R35 (release), REVISION: 4.1, GCID: 1\n", "unknown here"),
        ("# R36 (release), REVISION: 3.0, GCID: 1\n", "older than JetPack 6.2"),
        ("# R36 (release), REVISION: 4.0, GCID: 1\n", "older than JetPack 6.2"),
        ("# R99 (release), REVISION: 1.0, GCID: 1\n", "unknown here"),
        ("something else\n", "no release that this script can read"),
    ],
)
def test_another_system_is_refused(machine: Any, release: str | None, words: str) -> None:
    file = machine.root / "etc/nv_tegra_release"
    before = everything(machine)
    file.unlink()
    if release is not None:
        file.write_text(release)
    refused = run(machine, "install")
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    assert words in refused.stderr
    file.write_text(ORIN)
    assert not (machine.root / "opt/tightrope").exists() and len(everything(machine)) == len(before)


@pytest.mark.parametrize(
    "release", [ORIN, THOR, ORIN.replace("4.3", "5.0"), THOR.replace("38", "39")]
)
def test_a_board_is_known_and_what_it_lacks_is_named(machine: Any, release: str) -> None:
    (machine.root / "etc/nv_tegra_release").write_text(release)
    tensorrt = machine.root / "usr/lib/python3/dist-packages/tensorrt.py"
    aside = tensorrt.rename(tensorrt.with_suffix(".aside"))
    lacking = run(machine, "install")
    aside.rename(tensorrt)
    assert lacking.returncode == 1 and "apt-get install python3-libnvinfer" in lacking.stderr
    (machine.root / "etc/nv_tegra_release").write_text(ORIN)


def test_nobody_but_root_installs(machine: Any) -> None:
    command = ["setpriv", "--reuid=65534", "--clear-groups", SCRIPT, "install"]
    refused = machine.run(*command, check=False)
    assert refused.returncode == 2 and "run it with sudo" in refused.stderr


def test_upgrading_nothing_is_refused(machine: Any) -> None:
    assert run(machine, "upgrade").returncode == 2


def test_an_installation_answers_and_a_second_one_changes_nothing(machine: Any) -> None:
    arguments = ("install", "--bundle", f"{STATE}/bundles/scene.bundle", "--port=18173")
    first = run(machine, *arguments)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "which is ready" in first.stdout
    assert machine.show("tightrope.service", "ActiveState") == "active"
    assert "DeviceAllow=/dev/nvmap rw" in machine.run("systemctl", "cat", "tightrope").stdout
    assert "tightrope 0" in machine.run("/usr/local/bin/tightrope", "--version").stdout
    before = everything(machine)
    second = run(machine, *arguments)
    assert second.returncode == 0 and "is installed as it was asked for" in second.stdout
    assert everything(machine) == before


def test_an_upgrade_keeps_bundles_and_state_and_a_second_one_changes_nothing(machine: Any) -> None:
    process = machine.show("tightrope.service", "MainPID")
    environment = machine.run("readlink", "/opt/tightrope/current").stdout
    kept = machine.root / STATE[1:] / "bundles/scene.state/mine"
    kept.parent.mkdir(exist_ok=True)
    kept.write_text("kept")
    with (machine.root / "srv/checkout/tightrope/progress.py").open("a") as file:
        file.write("# newer\n")
    first = run(machine, "upgrade")
    assert first.returncode == 0, first.stdout + first.stderr
    assert machine.run("readlink", "/opt/tightrope/current").stdout != environment
    assert len(list((machine.root / "opt/tightrope").iterdir())) == 2
    assert machine.show("tightrope.service", "ActiveState") == "active"
    assert machine.show("tightrope.service", "MainPID") != process
    assert kept.read_text() == "kept"
    before = everything(machine)
    second = run(machine, "upgrade")
    assert second.returncode == 0 and "is in use already" in second.stdout
    assert everything(machine) == before


def test_an_upgrade_that_fails_leaves_what_was(machine: Any) -> None:
    process = machine.show("tightrope.service", "MainPID")
    project = machine.root / "srv/checkout/pyproject.toml"
    text = project.read_text()
    project.write_text(text.replace('"numpy>=1.26"', '"numpy>=1.26", "no-such-package-here"'))
    failed = run(machine, "upgrade")
    project.write_text(text)
    assert failed.returncode == 1 and "nothing was changed" in failed.stderr
    assert machine.show("tightrope.service", "MainPID") == process
    assert len(list((machine.root / "opt/tightrope").iterdir())) == 2


def test_what_is_left_is_bundles_and_state_and_a_second_removal_changes_nothing(
    machine: Any,
) -> None:
    first = run(machine, "uninstall")
    assert first.returncode == 0, first.stderr
    assert f"left: {STATE}" in first.stdout
    before = everything(machine)
    second = run(machine, "uninstall")
    assert second.returncode == 0 and everything(machine) == before
    found = machine.run(
        "find", "/", "-xdev", "-iname", "*tightrope*", "-not", "-path", "/srv/*", "-not", "-path",
        "/proc/*", "-not", "-path", f"{STATE}/*", "-not", "-path", "/var/log/*",
    ).stdout.split()  # fmt: skip
    assert found == [STATE]
    assert (machine.root / STATE[1:] / "bundles/scene.bundle/bundle.json").is_file()
    assert (machine.root / STATE[1:] / "bundles/scene.state/mine").is_file()
