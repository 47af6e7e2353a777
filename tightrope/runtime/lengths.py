"""How long an answer will be, by what its prompt says.

A task has short answers and long ones; "which colour" and "list all" tell them apart. A group is
all measured questions whose prompts share a token, or two neighbouring ones. Of a new prompt's
groups the one with the shortest answers counts: no more than one in a hundred of its answers is
longer than what is told (the quantile of split conformal prediction: Vovk, Gammerman and Shafer,
"Algorithmic Learning in a Random World", 2005).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import pairwise
from math import ceil

import numpy as np

from tightrope.arrays import Indices
from tightrope.runtime.candidates import LONGEST_ANSWER, Candidate

LEAST_ANSWERS = ceil(LONGEST_ANSWER / (1 - LONGEST_ANSWER))
"""The longest of fewer answers is passed by more than one in a hundred of the next."""
UNASKED = -1


class Lengths:
    """Of the answers of a task's groups of prompts, at each candidate."""

    def __init__(
        self, candidates: Sequence[Candidate], prompts: Mapping[str, Sequence[int]]
    ) -> None:
        """prompts: token ids by question."""
        self._most = [tuple(entry.most_tokens for entry in candidates)]
        """By group, of 99 in 100 answers at each candidate; the first is the whole task."""
        self._groups: dict[Hashable, int] = {}
        """By token, or pair of tokens."""
        if prompts:
            self._find_groups(candidates, prompts)

    def group(self, token_ids: Sequence[int]) -> int:
        """The group of shortest answers that a prompt belongs to; 0, the whole task, if to none."""
        found = (self._groups.get(feature, 0) for feature in _features(token_ids))
        return max(found, default=0)

    def most(self, group: int, place: int) -> int | None:
        """Tokens that 99 of 100 answers of a group do not exceed at the candidate at `place`.

        None where none were measured.
        """
        known = self._most[group]
        return known[place] if place < len(known) else None

    def _find_groups(
        self, candidates: Sequence[Candidate], prompts: Mapping[str, Sequence[int]]
    ) -> None:
        lengths = np.full((len(candidates), len(prompts)), UNASKED)
        places = {question: place for place, question in enumerate(prompts)}
        for row, entry in zip(lengths, candidates, strict=True):
            for outcome in entry.measured.outcomes:
                if outcome.question in places:
                    row[places[outcome.question]] = outcome.completion_tokens
        members: dict[Hashable, list[int]] = {}
        for question, token_ids in prompts.items():
            for feature in _features(token_ids):
                members.setdefault(feature, []).append(places[question])
        alike: dict[tuple[int, ...], list[Hashable]] = {}
        for feature, those in members.items():
            if LEAST_ANSWERS <= len(those) < len(prompts):
                alike.setdefault(tuple(those), []).append(feature)
        rows = {those: self._longest(lengths[:, list(those)]) for those in alike}
        # The shorter the answers, the higher the number.
        shorter = [questions for questions, row in rows.items() if self._is_shorter(row)]
        for questions in sorted(shorter, key=lambda questions: -_sum(rows[questions])):
            self._groups |= dict.fromkeys(alike[questions], len(self._most))
            self._most.append(rows[questions])

    def _longest(self, lengths: Indices) -> tuple[int | None, ...]:
        """Of lengths [P,Q], what 99 of 100 answers of each candidate do not exceed."""
        found = list(self._most[0])
        for place, row in enumerate(lengths):
            asked = np.sort(row[row != UNASKED])
            if len(asked) >= LEAST_ANSWERS:
                found[place] = int(asked[ceil(LONGEST_ANSWER * (len(asked) + 1)) - 1])
        return tuple(found)

    def _is_shorter(self, row: tuple[int | None, ...]) -> bool:
        return _sum(row) < _sum(self._most[0])


def _features(token_ids: Sequence[int]) -> set[Hashable]:
    """Tokens of a prompt, and pairs of neighbours."""
    return {*token_ids, *pairwise(token_ids)}


def _sum(most: Iterable[int | None]) -> int:
    return sum(count for count in most if count is not None)
