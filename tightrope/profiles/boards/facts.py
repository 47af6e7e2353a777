"""What a worker says of itself, and whether its answers may stand beside those of others."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tightrope
from tightrope.errors import ProfileError
from tightrope.latency_file import LatencyKey
from tightrope.profiles.latency.profile import installed_packages
from tightrope.runtime.backends.availability import installed_version
from tightrope.runtime.key import latency_key

if TYPE_CHECKING:
    from tightrope.runtime.model import Model

CODE = "tightrope's code"
EQUAL = ("tightrope", CODE, "distributed")
"""Programs that are the same everywhere; where others differ it is noted."""
BESIDE = ("distributed", "tokenizers")
"""Packages that what one machine measures does not name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """A process that measures."""

    programs: dict[str, str]
    """Versions of what it runs, by name; of the package's own code its digest."""
    key: LatencyKey
    """What it measures, and on what."""


def facts_of(model: Model) -> Facts:
    """Of this process and the model that it loaded."""
    beside = {name: installed_version(name) or "none" for name in BESIDE}
    own = {
        "python": platform.python_version(),
        "tightrope": tightrope.__version__,
        CODE: code_digest(),
    }
    return Facts(
        programs={**installed_packages(), **beside, **own},
        key=latency_key(model.bundle, model.backend),
    )


def code_digest() -> str:
    """Of this package's files and their names: those of one version may differ."""
    package = Path(tightrope.__file__).parent
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        digest.update(file.relative_to(package).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:12]


def check_alike(ours: Facts, workers: Mapping[str, Facts]) -> tuple[str, ...]:
    """What differs and may stay so, in words.

    Raises ProfileError naming a worker that has another bundle, or programs that must be the same.
    """
    notes = []
    for name, theirs in workers.items():
        if theirs.key.bundle != ours.key.bundle:
            raise ProfileError(
                f"{name} has bundle {theirs.key.bundle:.12}…, this one is "
                f"{ours.key.bundle:.12}…: copy this one there, and start its worker again"
            )
        for program in sorted({*ours.programs, *theirs.programs}):
            has, here = (facts.programs.get(program, "none") for facts in (theirs, ours))
            if has != here and program in EQUAL:
                raise ProfileError(
                    f"{name} has {program} {has}, here it is {here}: install the same everywhere, "
                    "and start its worker again"
                )
            if has != here:
                notes.append(f"{name} has {program} {has}, here it is {here}")
    return tuple(notes)
