"""Version of each kind of JSON object that Tightrope prints or writes, besides the bundle's own.

A number rises when a key is renamed, removed or changes its meaning; new keys leave it as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SCHEMAS = {
    "answer": 1,
    "bench": 1,
    "build": 1,
    "check": 1,
    "comparison": 1,
    "count": 1,
    "doctor": 2,
    "export": 1,
    "frontier": 1,
    "inspect": 1,
    "kernels": 1,
    "latency": 1,
    "live": 1,
    "methods": 1,
    "points": 1,
    "quality": 1,
    "report": 1,
    "score": 1,
    "selftest": 1,
    "selftest-report": 1,
    "service": 1,
    "task": 1,
    "tegrastats": 1,
}


def versioned(kind: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` as an object of that kind: the schema number first."""
    return {"schema": SCHEMAS[kind], **values}
