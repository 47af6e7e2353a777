"""Fetch NVIDIA's Python bindings of the TensorRTs that boards have, 5 MB in all, into .cache/.

Only the bindings: no TensorRT is in them, and nothing is installed. Without a network one sentence
says so and the exit code is 0; the tests that need them are then skipped.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

BINDINGS = {
    "10.3.0": "tensorrt_cu12_bindings",
    "10.13.3.9": "tensorrt_cu12_bindings",
    "10.16.1.11": "tensorrt_cu13_bindings",
    "11.4.0.106": "tensorrt_cu13_bindings",
}
"""Version -> distribution: JetPack 6.2, 7.1 and 7.2, and what follows."""
CACHE = Path(__file__).resolve().parents[2] / ".cache" / "tensorrt_bindings"


def folder_of(version: str) -> Path:
    """Where a version's package lies, once it was fetched for the Python that runs."""
    return CACHE / f"{version}-py{sys.version_info.major}{sys.version_info.minor}"


def fetch(version: str) -> bool:
    """Whether the package is there; it appears whole or not at all."""
    folder = folder_of(version)
    if folder.is_dir():
        return True
    wheels = CACHE / "wheels"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(wheels), f"{BINDINGS[version]}=={version}"]
    if subprocess.run(command, capture_output=True, text=True, check=False).returncode:
        return False
    (wheel,) = wheels.glob(f"*-{version}-*.whl")
    partial = folder.with_suffix(".partial")
    zipfile.ZipFile(wheel).extractall(partial)
    partial.rename(folder)
    wheel.unlink()
    return True


def main() -> None:
    missing = [version for version in BINDINGS if not fetch(version)]
    if missing:
        print(f"TensorRT's bindings {', '.join(missing)} cannot be downloaded here: going on.")


if __name__ == "__main__":
    main()
