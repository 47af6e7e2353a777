"""Whatever a checkpoint contains is used, known to be without effect, or refused by name.

A reader opens an `Account` of what it found, takes what it uses, and closes it:

    account = Account("keys of the image processor", processor, HARMLESS_KEYS, "take it from ...")
    side = account.take("size")
    left_out += account.close()
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tightrope.errors import UnsupportedModel

_LISTED = 5


@dataclass(frozen=True, slots=True)
class Harmless:
    """Names that may be left lying, and why nothing is lost."""

    names: str
    """A regular expression that matches the whole name."""
    reason: str


@dataclass(frozen=True, slots=True)
class WithoutEffect:
    """One thing that was found, not used, and is known to change nothing."""

    what: str
    """Of which account: "tensors of the checkpoint"."""
    name: str
    reason: str


class Account:
    """What was found in one place, and what of it was taken."""

    def __init__(
        self,
        what: str,
        found: Mapping[str, Any],
        harmless: Sequence[Harmless] = (),
        way_out: str = "take it from where the checkpoint was published",
    ) -> None:
        """what: names the things in the plural, such as "tensors of the checkpoint".

        way_out: what the reader of a refusal can do.
        """
        self._what = what
        self._left = dict(found)
        self._harmless = harmless
        self._way_out = way_out

    def take(self, name: str, default: Any = None) -> Any:
        """The value of `name`, which is used from now on; `default` if it was not found."""
        return self._left.pop(name, default)

    def take_all(self, names: Iterable[str]) -> None:
        """Note that `names` are used."""
        for name in names:
            self._left.pop(name, None)

    def close(self) -> list[WithoutEffect]:
        """What is left and known to be without effect.

        Raises UnsupportedModel that names whatever else is left.
        """
        known, unknown = [], []
        for name in self._left:
            reasons = [rule.reason for rule in self._harmless if re.fullmatch(rule.names, name)]
            if reasons:
                known.append(WithoutEffect(self._what, name, reasons[0]))
            else:
                unknown.append(name)
        if unknown:
            raise UnsupportedModel(
                f"{self._what} that nothing here reads, and that may change the model: "
                f"{listed(unknown)}; {self._way_out}"
            )
        return known


def listed(names: Sequence[str]) -> str:
    """At most five names, and how many more there are; one that breaks lines is quoted."""
    shown = ", ".join(name if name.isprintable() else repr(name) for name in names[:_LISTED])
    return shown if len(names) <= _LISTED else f"{shown} and {len(names) - _LISTED} more"


def notes(entries: Sequence[WithoutEffect]) -> list[str]:
    """A sentence for each account, for an export's summary."""
    sentences = []
    for what in dict.fromkeys(entry.what for entry in entries):
        mine = [entry for entry in entries if entry.what == what]
        reasons = dict.fromkeys(entry.reason for entry in mine)
        sentences.append(f"{what} that have no effect: {len(mine)} ({'; '.join(reasons)})")
    return sentences
