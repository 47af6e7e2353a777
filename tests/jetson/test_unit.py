"""The unit's text: what systemd says of it, what may stand in it, whose it is."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tightrope.errors import InputError
from tightrope.jetson.service.config import ServiceConfig, out_of_reach
from tightrope.jetson.service.devices import gpu_devices, gpu_groups
from tightrope.jetson.service.install import Service, plan
from tightrope.jetson.service.unit import MARK, unit_text

BOARD = ("/dev/nvhost-gpu", "/dev/nvmap", "/dev/dri/renderD128")
MOST_EXPOSED = 3.0
analysing = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="needs systemd: apt-get install systemd"
)


def config(**settings: object) -> ServiceConfig:
    usual: dict[str, object] = {
        "command": (sys.executable, "-m", "tightrope"),
        "bundles": (Path("/srv/scene.bundle"),),
        "options": ("--port=8000",),
        "memory_max_bytes": 10**9,
    }
    return ServiceConfig(**{**usual, **settings})  # type: ignore[arg-type]


def analysed(tmp_path: Path, text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    file = tmp_path / "tightrope.service"
    file.write_text(text)
    return subprocess.run(
        ["systemd-analyze", *arguments, str(file)], capture_output=True, text=True, check=False
    )


ODD = (Path("/srv/a b/50 %$HOME \"x\" \\ 'é'.bundle"), Path("/srv/-x.bundle"))


@analysing
@pytest.mark.parametrize("bundles", [(Path("/srv/scene.bundle"),), ODD])
def test_systemd_reads_it_without_a_word(tmp_path: Path, bundles: tuple[Path, ...]) -> None:
    keys = {"api-keys": Path("/etc/tight rope/50%/keys")}
    text = unit_text(config(bundles=bundles, credentials=keys), BOARD, ("video",))
    said = analysed(tmp_path, text, "verify", "--recursive-errors=no")
    mine = [line for line in said.stderr.splitlines() if "tightrope.service" in line]
    assert (said.returncode, mine) == (0, [])


@analysing
def test_little_of_the_system_is_open_to_it(tmp_path: Path) -> None:
    text = unit_text(config(), BOARD, ("video", "render"))
    said = analysed(
        tmp_path, text, "security", "--offline=yes", f"--threshold={MOST_EXPOSED * 10:.0f}"
    )
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", said.stdout)
    assert found is not None, said.stdout + said.stderr
    assert float(found[1]) <= MOST_EXPOSED and said.returncode == 0


def test_a_command_arrives_as_it_was_meant() -> None:
    """A shell reads such quotes as systemd does; only systemd knows % and $, which are doubled."""
    text = unit_text(config(bundles=ODD), (), ())
    (line,) = (line for line in text.splitlines() if line.startswith("ExecStart="))
    words = shlex.split(line.removeprefix("ExecStart="))
    read = [word.replace("%%", "%").replace("$$", "$") for word in words]
    assert read == [sys.executable, "-m", "tightrope", "serve", *map(str, ODD), "--port=8000"]
    assert "%" not in line.replace("%%", "") and "$" not in line.replace("$$", "")


def test_only_devices_that_are_there_are_open(tmp_path: Path) -> None:
    for name in ("nvmap", "nvhost-gpu", "nvgpu/igpu0/ctrl", "nvidia0", "dri/renderD128", "sda"):
        (tmp_path / "dev" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "dev" / name).touch()
    (tmp_path / "dev/nvidia-caps").mkdir()
    found = gpu_devices(tmp_path)
    assert found == (
        *("/dev/dri/renderD128", "/dev/nvgpu/igpu0/ctrl", "/dev/nvhost-gpu", "/dev/nvidia0"),
        "/dev/nvmap",
    )
    text = unit_text(config(), found, ("video",))
    assert "DevicePolicy=closed" in text and "DeviceAllow=/dev/nvmap rw" in text
    assert gpu_devices(tmp_path / "none") == ()


def test_only_groups_that_are_there_are_named(tmp_path: Path) -> None:
    """A unit with an unknown group would not start."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/group").write_text("root:x:0:\nvideo:x:44:\n")
    assert gpu_groups(tmp_path) == ("video",)
    assert gpu_groups(tmp_path / "none") == ()
    assert "SupplementaryGroups" not in unit_text(config(), (), ())


def test_a_unit_of_somebody_else_is_never_taken(tmp_path: Path) -> None:
    for folder in ("etc/systemd/system", "usr/lib/systemd/system", "run/systemd/system"):
        file = tmp_path / folder / "tightrope.service"
        file.parent.mkdir(parents=True)
        file.write_text("[Service]\nExecStart=/bin/true\n")
        with pytest.raises(InputError, match=rf"{folder}.* was not written by .*another --name"):
            plan(config(), tmp_path)
        file.unlink()
    (tmp_path / "etc/systemd/system/tightrope.service").write_text(f"{MARK}\n[Service]\n")
    assert Service(name="tightrope", root=tmp_path).is_installed
    assert len(plan(config(), tmp_path)) == 2


def test_a_user_of_somebody_else_is_never_taken(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("games:x:5:60:games:/:/bin/false\n")
    with pytest.raises(InputError, match="user of that name for something else"):
        plan(config(name="games"), tmp_path)


@pytest.mark.parametrize("name", ["", "-x", "X", "a/b", "a.service", "a" * 32, "1a", "é"])
def test_a_name_is_one_for_units_and_users(name: str) -> None:
    with pytest.raises(InputError, match="small letters"):
        config(name=name)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"bundles": ()}, "bundle is missing"),
        ({"bundles": (Path("/srv/a\nb"),)}, "control character"),
        ({"options": ("--host=a\x7f",)}, "control character"),
        ({"watchdog_s": 4}, "watchdog is 4"),
    ],
)
def test_what_no_unit_can_hold_is_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        config(**settings)


@pytest.mark.parametrize("place", ["/home/x/a.bundle", "/root/a.bundle", "/tmp/a.bundle"])
def test_what_a_service_would_not_see_is_told(tmp_path: Path, place: str) -> None:
    found = out_of_reach(config(bundles=(Path(place),), command=("/usr/bin/python3",)))
    assert len(found) == 1 and "does not see" in found[0]
    link = tmp_path / "link.bundle"
    link.symlink_to(place)
    assert out_of_reach(config(bundles=(link,), command=("/usr/bin/python3",)))
