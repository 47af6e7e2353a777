"""What NVIDIA's packages are installed, from the files that they leave."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from tightrope.jetson.files import text_of

_TENSORRT = re.compile(r"libnvinfer\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Software:
    """Versions; None where nothing says so."""

    cuda: str | None
    tensorrt: str | None
    jetpack: str | None
    """Of the package nvidia-jetpack, which not every image has."""


def read_software(root: Path) -> Software:
    """What is installed under `root`; nothing is loaded or executed."""
    packages = parse_packages(text_of(root / "var/lib/dpkg/status") or "")
    tensorrt = [version for name, version in packages.items() if _TENSORRT.fullmatch(name)]
    return Software(
        cuda=_cuda(root),
        tensorrt=_upstream(max(tensorrt, key=version_key, default=None)),
        jetpack=_upstream(packages.get("nvidia-jetpack")),
    )


def parse_packages(text: str) -> dict[str, str]:
    """Versions of NVIDIA's installed packages by name, from dpkg's status file."""
    found = {}
    for block in text.split("\n\n"):
        fields = dict(re.findall(r"^(Package|Version|Status): (.+)$", block, re.MULTILINE))
        name, installed = fields.get("Package", ""), fields.get("Status", "").endswith(" installed")
        if installed and name.startswith(("libnvinfer", "nvidia-")) and "Version" in fields:
            found[name] = fields["Version"]
    return found


def version_key(version: str) -> tuple[int, ...]:
    """For comparing "10.3.0.30-1+cuda12.5": its numbers before the first sign of another kind."""
    return tuple(int(number) for number in re.findall(r"\d+", version.partition("-")[0]))


def _upstream(version: str | None) -> str | None:
    """ "10.3.0.30" of "10.3.0.30-1+cuda12.5"."""
    return None if version is None else version.partition("-")[0].partition("+")[0]


def _cuda(root: Path) -> str | None:
    text = text_of(root / "usr/local/cuda/version.json")
    try:
        version = json.loads(text or "")["cuda"]["version"]
    except (ValueError, LookupError, TypeError):
        return None
    return version if isinstance(version, str) else None
