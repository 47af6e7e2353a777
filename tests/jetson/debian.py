"""A Debian to install in and the wheels for it, in .cache: what `make test-install` needs once.

    python tests/jetson/debian.py

debootstrap makes the Debian from this machine's own sources of packages, in a minute or two.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
DEBIAN, WHEELS = ROOT / ".cache/debian", ROOT / ".cache/debian-wheels"
_PACKAGES = "systemd,systemd-sysv,passwd,python3,python3-venv,libgomp1"


def main() -> None:
    if not DEBIAN.exists():
        partial = DEBIAN.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.parent.mkdir(exist_ok=True)
        suite, mirror = _source()
        subprocess.run(
            [
                "debootstrap",
                "--variant=minbase",
                f"--include={_PACKAGES}",
                suite,
                str(partial),
                mirror,
            ],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        partial.rename(DEBIAN)
    if not WHEELS.exists():
        partial = WHEELS.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        _download(partial)
        partial.rename(WHEELS)


def _source() -> tuple[str, str]:
    """Name of this Debian, and where its packages come from."""
    release = Path("/etc/os-release").read_text(encoding="utf-8")
    suite = re.search(r"^VERSION_CODENAME=(\w+)", release, re.M)
    files = [Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*")]
    text = "\n\n".join(file.read_text(encoding="utf-8") for file in files if file.is_file())
    if suite is None:
        sys.exit("/etc/os-release names no Debian")
    for block in re.split(r"\n\s*\n", re.sub(r"(?m)^#.*\n?", "", text)):
        mirror = re.search(r"^URIs:\s+(\S+)", block, re.M)
        if mirror and re.search(rf"^Suites:.*\b{suite[1]}(\s|$)", block, re.M):
            return suite[1], mirror[1]
    if line := re.search(rf"^deb (?:\[[^]]*\] )?(\S+) {suite[1]} ", text, re.M):
        return suite[1], line[1]
    sys.exit(f"/etc/apt names no source of packages of {suite[1]}")


def _download(folder: Path) -> None:
    """Wheels of the runtime and its server, and what builds ours, for the Debian's Python."""
    version = next(DEBIAN.glob("usr/bin/python3.*[0-9]")).name.removeprefix("python")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [
        *project["dependencies"],
        *extras["cpu"],
        *extras["serve"],
        "cuda-bindings",
        "setuptools>=77",
    ]
    pip = [sys.executable, "-m", "pip"]
    # Published as source alone; pure Python.
    subprocess.run(
        [*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), "sdnotify"], check=True
    )
    subprocess.run(
        [*pip, "download", "--quiet", "--dest", str(folder), "--find-links", str(folder),
         "--only-binary", ":all:", "--python-version", version,
         "--constraint", str(ROOT / "constraints.txt"), *wanted],
        check=True,
    )  # fmt: skip


if __name__ == "__main__":
    main()
