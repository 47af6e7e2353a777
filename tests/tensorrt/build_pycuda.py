"""Build pycuda into .cache/ where there is no CUDA: headers come from NVIDIA's wheels.

It has no wheel anywhere and compiles against CUDA's headers and libraries; here the library is a
stand-in, because the tests bring a driver of their own. Some minutes, once. Without a network or a
compiler one sentence says so and the exit code is 0; the tests that need it are then skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

VERSION = "2026.1"
HEADERS = (
    "nvidia-cuda-runtime>=13,<14",
    "nvidia-cuda-crt>=13,<14",
    "nvidia-cuda-profiler-api>=13,<14",
    "nvidia-curand>=10.4,<11",
)
CACHE = Path(__file__).resolve().parents[2] / ".cache"


def folder() -> Path:
    """Where it lies, once it was built for the Python that runs."""
    return CACHE / f"pycuda-{VERSION}-py{sys.version_info.major}{sys.version_info.minor}"


def curand() -> Path:
    """The library that pycuda needs beside the driver's."""
    return next(folder().glob("nvidia/*/lib/libcurand.so.*"))


def pip(*arguments: str, environment: dict[str, str] | None = None) -> None:
    """Raises CalledProcessError with what pip said."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", *arguments]
    changed = {**os.environ, **(environment or {})}
    subprocess.run(command, env=changed, check=True, capture_output=True, text=True)


def build() -> None:
    """The package appears whole or not at all."""
    if folder().is_dir():
        return
    partial = folder().with_name(f"{folder().name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    pip("--target", str(partial), "--no-deps", *HEADERS)
    (include,) = {file.parent for file in partial.glob("nvidia/*/include/cuda.h")}
    libraries = include.parent / "lib"
    with tempfile.TemporaryDirectory() as stand_ins:
        empty = Path(stand_ins) / "empty.c"
        empty.touch()
        library = Path(stand_ins) / "libcuda.so"
        options = ["-shared", "-Wl,-soname,libcuda.so.1", "-o", str(library), str(empty)]
        subprocess.run(["cc", *options], check=True, capture_output=True, text=True)
        (real,) = libraries.glob("libcurand.so.*")
        (Path(stand_ins) / "libcurand.so").symlink_to(real)
        environment = {
            "CUDA_ROOT": str(include.parent),
            "CPATH": str(include),
            "LIBRARY_PATH": f"{stand_ins}:{libraries}",
        }
        pip("--target", str(partial), f"pycuda=={VERSION}", environment=environment)
    partial.rename(folder())


def main() -> None:
    try:
        build()
    except (subprocess.CalledProcessError, OSError) as error:
        said = getattr(error, "stderr", None) or str(error)
        print(f"pycuda {VERSION} cannot be built here, going on: {said.strip().splitlines()[-1]}")


if __name__ == "__main__":
    main()
