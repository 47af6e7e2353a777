"""One file of what came of a self-test, to be sent to whoever can make something of it.

It has versions, figures and failures: no prompts, no images, no weights, and of paths only what
lies inside the bundle.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tightrope.bundle import Bundle
from tightrope.errors import InputError
from tightrope.folders import reaching
from tightrope.foreign import translated
from tightrope.runtime.selftest.check import Finding
from tightrope.schemas import versioned
from tightrope.state import write_whole

_TOLD = (
    *("format", "family", "dims", "positions", "opset_version", "precision", "activations"),
    *("slots", "prefill_chunk", "windows", "selectors", "schedules", "parity", "exporter"),
)
"""Entries of bundle.json that say what was tested; whose weights they are is nobody's business."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was held against the bundle's answers."""

    backend: str
    device: str | None
    """None where the backend could not be opened."""
    findings: Sequence[Finding]

    @property
    def passed(self) -> bool:
        return all(finding.passed for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return asdict(self) | {"passed": self.passed}


def write_report(
    file: Path, bundle: Bundle, tested: Verdict, machine: Mapping[str, Any], engines: Sequence[Any]
) -> None:
    """Write the file whole or not at all; raises InputError where it cannot be written.

    machine: what `tightrope doctor` tells. engines: what is known of those that were built here.
    """
    described = bundle.manifest.to_dict()
    values = {
        "bundle": {"digest": bundle.digest, **{name: described[name] for name in _TOLD}},
        **tested.to_dict(),
        "engines": list(engines),
        "machine": dict(machine),
    }
    told = _without({str(bundle.path): "BUNDLE", str(Path.home()): "HOME"}, values)
    text = json.dumps(versioned("selftest-report", told), indent=2)
    with (
        reaching("--report", file),
        translated(InputError, f"--report {file} was not written", "name another"),
    ):
        write_whole(file, text + "\n")


def _without(places: Mapping[str, str], value: Any) -> Any:
    """`value` with this machine's places replaced in every text."""
    if isinstance(value, str):
        for place, name in places.items():
            value = value.replace(place, name)
        return value
    if isinstance(value, Mapping):
        return {key: _without(places, item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without(places, item) for item in value]
    return value
