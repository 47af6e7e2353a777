"""Slots of prompts' beginnings, kept for requests that begin alike.

A prompt is always read in calls that end at its cuts, whether or not something is kept. So slots
that were filled up to a cut are, to the last bit, those that reading it again would fill, and an
answer does not depend on what ran before. Nothing is kept once a slot was given up. The device's
thread alone keeps and forks; others may ask what there is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from tightrope.arrays import Counts, Floats
from tightrope.inputs.layout import ImageTokens
from tightrope.plugins.slot_attention.policies import scoring
from tightrope.runtime.kept import Kept
from tightrope.runtime.marks import Beginnings, Cut, Mark
from tightrope.runtime.slots import Slots


@dataclass(frozen=True, slots=True)
class PrefixKey:
    """All that the slots of a beginning depend on."""

    tokens: tuple[int | bytes, ...]
    """Ids, and of an image the hash of the visual tokens that entered the language model."""
    cuts: tuple[int, ...]
    """Where it was cut before, in ids."""
    scoring: bytes

    @property
    def mark(self) -> tuple[int, bytes]:
        """How `Beginnings` tells of it."""
        return len(self.tokens), self.scoring


@dataclass(frozen=True, slots=True)
class Stop:
    """A cut of a prompt and the key of what stands before it."""

    cut: Cut
    key: PrefixKey


@dataclass(frozen=True, slots=True)
class _Prefix:
    slots: Slots
    """Without an empty one."""
    capacity: Counts
    """[L], that the slots had when they were filled: with other capacities sums round otherwise."""

    @property
    def nbytes(self) -> int:
        return self.slots.nbytes + self.slots.ranking_nbytes


class Prefixes:
    """What is kept of one bundle's prompts on its backend."""

    def __init__(self, most_bytes: int) -> None:
        self.kept: Kept[PrefixKey, _Prefix] = Kept(most_bytes, lambda prefix: prefix.nbytes)

    def keep(self, key: PrefixKey, slots: Slots) -> None:
        """Keep a copy of `slots`, of which none was given up yet, if the bound allows."""
        used = slots.occupied.max((1, 2))
        size = slots.nbytes * int(used.sum()) // int(slots.capacity.sum())
        if key not in self.kept and size <= self.kept.most_bytes:
            self.kept.put(key, _Prefix(slots.fork(1, used), slots.capacity.copy()))

    def fork(self, key: PrefixKey) -> Slots | None:
        """Slots to go on from, as if the beginning had just been read; None if it is not kept."""
        prefix = self.kept.get(key)
        return None if prefix is None else prefix.slots.fork(1, prefix.capacity)

    def beginnings(
        self, token_ids: Sequence[int], marks: tuple[Mark, ...], wholes: tuple[int, ...] = ()
    ) -> Beginnings:
        """What is kept of a prompt, as far as its ids alone say: of text, not of images.

        wholes: as of `Beginnings`.
        """
        ends = tuple(mark.num_ids for mark in marks)
        wanted = {
            (tuple(token_ids[:end]), ends[:i])
            for i, end in enumerate(ends)
            if marks[i].num_images == 0
        }
        found = (key for key in self.kept if (key.tokens, key.cuts) in wanted)
        return Beginnings(marks, frozenset(key.mark for key in found), wholes)


def stops_of(
    cuts: Sequence[Cut],
    token_ids: Sequence[int],
    placeholder: int | None,
    images: Sequence[ImageTokens],
    policy: Floats,
) -> list[Stop]:
    """The cuts of a prompt with their keys; policy: [L,8]."""
    waiting = iter(images)
    read = token_ids[: cuts[-1].num_ids] if cuts else ()
    tokens = [
        _fingerprint(next(waiting)) if images and token == placeholder else token for token in read
    ]
    ends = tuple(cut.num_ids for cut in cuts)
    return [
        Stop(cut, PrefixKey(tuple(tokens[: cut.num_ids]), ends[:i], scoring(policy)))
        for i, cut in enumerate(cuts)
    ]


def _fingerprint(image: ImageTokens) -> bytes:
    """Of what an image brings, however it was seen and selected."""
    said = hashlib.blake2b(repr((image.layout, image.behind)).encode(), digest_size=16)
    said.update(image.index.tobytes())
    said.update(image.embeds.tobytes())
    return said.digest()
