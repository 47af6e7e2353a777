"""A small machine of its own: a root in memory, and a process 1 in namespaces; `boot.sh` makes it.

Programs come from this machine's /usr, the package and its dependencies from where the tests have
them.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).parent
SYSTEMD = "/lib/systemd/systemd --system --unit=basic.target"
PROGRAM = "/opt/tightrope/bin/python"
_PYTHON, _SOURCE, _SITE = "/opt/python", "/opt/source", "/opt/site"
_NAMESPACES = ("--mount", "--pid", "--ipc", "--uts", "--cgroup")
_CGROUPS = Path("/sys/fs/cgroup")
PATIENCE_S = 60.0


def lacking() -> str | None:
    """Why no such machine can be made here, if none can."""
    if os.geteuid() != 0:
        return "namespaces with a systemd in them are made by root"
    if not Path("/lib/systemd/systemd").exists():
        return "systemd is not here: apt-get install systemd"
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        return "util-linux is not here: apt-get install util-linux"
    tried = subprocess.run(
        ["unshare", *_NAMESPACES, "--fork", "mount", "-t", "tmpfs", "tmpfs", "/mnt"],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"no namespaces here: {tried.stderr.strip()}" if tried.returncode else None


def until(met: Callable[[], object], what: str, seconds: float = PATIENCE_S) -> float:
    """Wait until `met`; returns for how many seconds."""
    begun = time.monotonic()
    while not met():
        assert time.monotonic() - begun < seconds, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.05)
    return time.monotonic() - begun


class Booted:
    """One such machine; `close` ends all that runs in it."""

    def __init__(self, folder: Path, base: Path | None = None) -> None:
        """folder: an empty one for its root. base: what it begins as if not as /usr."""
        self._name = f"tightrope-tests-{os.getpid()}-{time.monotonic_ns()}"
        binds = []
        if base is None:
            binds += [f"{HERE.parent}={_SOURCE}", f"{sysconfig.get_path('purelib')}={_SITE}"]
            if sys.base_prefix != "/usr":
                binds.append(f"{sys.base_prefix}={_PYTHON}")
        self._process = subprocess.Popen(
            ["unshare", *_NAMESPACES, "--fork", "--kill-child", "bash", str(HERE / "boot.sh"),
             str(folder), SYSTEMD, *binds],
            preexec_fn=self._into_cgroups,
            env={**os.environ, "BASE": "" if base is None else str(base)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        until(lambda: self._process.poll() is None and children.read_text().split(), "a child")
        self.pid = int(children.read_text().split()[0])
        self.root = Path(f"/proc/{self.pid}/root")
        """Its files, seen from here."""
        try:
            until(self._is_up, "process 1 is up")
            if base is None:
                self._install()
        except BaseException:
            self.close()
            raise

    def _into_cgroups(self) -> None:
        """In the child: groups of its own, so that a systemd there finds none of this machine's."""
        for folder in self._cgroups():
            with contextlib.suppress(OSError):
                folder.mkdir()
                (folder / "cgroup.procs").write_text(str(os.getpid()))

    def _cgroups(self) -> Iterator[Path]:
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, kind, path = line.split(":", 2)
            names = ("unified", "") if not kind else (kind.removeprefix("name="),)
            for base in (_CGROUPS / name for name in names):
                if (base / "cgroup.procs").exists():
                    yield base / path.lstrip("/") / self._name

    def _is_up(self) -> bool:
        if self._process.poll() is not None:
            assert self._process.stderr is not None
            raise AssertionError(f"it did not boot: {self._process.stderr.read()}")
        if Path(f"/proc/{self.pid}/comm").read_text().strip() != "systemd":
            return False
        told = self.run("systemctl", "is-active", "basic.target", check=False)
        return told.stdout.strip() == "active"

    def _install(self) -> None:
        """The package, in an environment like that of a board."""
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        prefix = "/usr" if sys.base_prefix == "/usr" else _PYTHON
        # Where it is not found at its own place, this one is to come before the system's.
        libraries = self.root / "etc/ld.so.conf.d/00-tests.conf"
        libraries.write_text(f"{prefix}/lib\n")
        self.run("ldconfig")
        self.run(f"{prefix}/bin/{version}", "-m", "venv", "--without-pip", "/opt/tightrope")
        site = self.root / "opt/tightrope/lib" / version / "site-packages"
        (site / "tests.pth").write_text(f"{_SOURCE}\n{_SITE}\n")

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """What a command there prints."""
        ran = subprocess.run(
            ["nsenter", "--target", str(self.pid), *_NAMESPACES, "env", "-i", "--chdir=/",
             "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "PYTHONDONTWRITEBYTECODE=1",
             *command],
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip
        assert not check or ran.returncode == 0, f"{command}: {ran.stdout}{ran.stderr}"
        return ran

    def tightrope(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """What our own command there prints."""
        return self.run(PROGRAM, "-m", "tightrope", *arguments, check=check)

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        told = self.run("systemctl", "show", unit, f"--property={name}", "--value")
        return told.stdout.strip()

    def copy(self, source: Path, target: str) -> None:
        """A folder of this machine to `target` there."""
        shutil.copytree(source, self.root / target.lstrip("/"))

    def close(self) -> None:
        self._process.kill()
        self._process.wait(30)
        for folder in list(self._cgroups()):
            until(functools.partial(_removed, folder), f"{folder} is empty", 30)


def _removed(cgroup: Path) -> bool:
    """Whether it is gone with all below it: what was killed leaves them a little later."""
    folders = [path for path, _, _ in os.walk(cgroup, topdown=False)]
    for folder in folders:
        with contextlib.suppress(OSError):
            os.rmdir(folder)
    return not cgroup.exists()
