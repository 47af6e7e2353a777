"""Where a prompt may be cut, because what stands before is likely to come again.

Behind the messages of the system, and before the user's last message. The places are found by
writing the conversation up to there with other words behind it: what stays the same does not depend
on the question, whatever the template and the tokenizer make of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tightrope.errors import TightropeError

PROBES = ("a", "b")
"""Questions that begin differently."""
_OF_THE_SYSTEM = ("system", "developer")

Encode = Callable[[Sequence[Mapping[str, Any]]], list[int]]


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a prompt, told by what stands before it."""

    num_ids: int
    num_images: int
    """Of the ids, those that stand for an image."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A mark at which a request ends a call of the decoder."""

    num_ids: int
    place: int
    """Tokens before it that enter the language model."""
    ordinal: int
    """The same unpruned."""


@dataclass(frozen=True, slots=True)
class Beginnings:
    """Where a prompt may be cut, and what of it is kept."""

    marks: tuple[Mark, ...] = ()
    kept: frozenset[tuple[int, bytes]] = frozenset()
    """`num_ids` of a mark and the scoring of the slots that are kept up to there."""
    wholes: tuple[int, ...] = ()
    """Places, among the ids, of images that no call may end inside."""


UNCUT = Beginnings()
"""Of a prompt that is no conversation."""


def marks_of(
    messages: Sequence[Mapping[str, Any]],
    token_ids: Sequence[int],
    placeholder: int | None,
    encode: Encode,
) -> tuple[Mark, ...]:
    """The marks of a conversation whose prompt is `token_ids`, ascending.

    placeholder: the id that stands for an image, None where there are no images.
    encode: messages to the ids of their prompt. A template that refuses what it is asked has none.
    """
    marks: list[Mark] = []
    for place in _places([message["role"] for message in messages]):
        shared = list(token_ids[:-1])  # something is left to be read
        for probe in PROBES:
            question = {"role": "user", "content": probe}
            try:
                shared = _shared(shared, encode([*messages[:place], question]))
            except TightropeError:
                return tuple(marks)
        if len(shared) > (marks[-1].num_ids if marks else 0):
            images = 0 if placeholder is None else shared.count(placeholder)
            marks.append(Mark(len(shared), images))
    return tuple(marks)


def _places(roles: Sequence[str]) -> list[int]:
    """Numbers of messages before which there may be a mark."""
    if "user" not in roles:
        return []
    first = next(i for i, role in enumerate(roles) if role not in _OF_THE_SYSTEM)
    last = len(roles) - 1 - list(reversed(roles)).index("user")
    return sorted({first, last} - {0})


def _shared(one: Sequence[int], other: Sequence[int]) -> list[int]:
    """What both begin with."""
    length = next(
        (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b),
        min(len(one), len(other)),
    )
    return list(one[:length])
