"""Metadata of a GGUF file's architecture, each key checked as it is taken."""

from __future__ import annotations

import math
from typing import Any

from tightrope.errors import UnsupportedModel
from tightrope.export.accounting import Account
from tightrope.export.gguf.file import GgufFile

WAY_OUT = "export the model's Hugging Face folder, or convert it again"


class Keys:
    """Keys of the file's architecture, by their names without it."""

    def __init__(self, file: GgufFile, account: Account) -> None:
        """account: from which they are taken."""
        self._path = file.path
        self._architecture = file.architecture
        self._account = account

    def take(self, name: str, default: Any = None) -> Any:
        return self._account.take(f"{self._architecture}.{name}", default)

    def whole(self, name: str, default: int | None = None) -> int:
        """A count of one or more; a list of equal ones, one for each layer, is that count."""
        value = self.take(name, default)
        if isinstance(value, list):
            if len(set(value)) != 1:
                raise self.wrong(name, value[:8], "the same in every layer")
            value = value[0]
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 1 << 31:
            raise self.wrong(name, value, "a whole number, 1 or more")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A finite number."""
        value = self.take(name, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.wrong(name, value, "a number")
        if not math.isfinite(value):
            raise self.wrong(name, value, "a finite number")
        return float(value)

    def wrong(self, name: str, value: object, accepted: str) -> UnsupportedModel:
        said = "is missing" if value is None else f"is {value!r}"
        return UnsupportedModel(
            f"{self._path}: {self._architecture}.{name} {said}; accepted: {accepted}; {WAY_OUT}"
        )
