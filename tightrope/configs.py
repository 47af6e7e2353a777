"""Settings of a config dataclass: each states its default and its sentence once.

The command line reads both here, so that `--help` says what the class says.
"""

from __future__ import annotations

from dataclasses import Field, field, fields
from typing import Any, TypeVar

T = TypeVar("T")


def setting(default: T, help: str) -> T:
    """A dataclass field with its default, explained in one sentence."""
    return field(default=default, metadata={"help": help})


def default_of(config: type, name: str) -> Any:
    """The default of a config's setting."""
    return _field(config, name).default


def help_of(config: type, name: str) -> str:
    """The sentence of a config's setting."""
    sentence: str = _field(config, name).metadata["help"]
    return sentence


def _field(config: type, name: str) -> Field[Any]:
    return next(field for field in fields(config) if field.name == name)
