"""How far an answer agrees with another one."""

from __future__ import annotations

from collections.abc import Sequence

from tightrope.runtime.thought import after_thought


def same_answer(text: str, other: str) -> float:
    """1 where both say the same behind their thoughts, else 0."""
    return float(_said(text) == _said(other))


def token_agreement(token_ids: Sequence[int], unpruned: Sequence[int]) -> float:
    """Share of the tokens of `unpruned` that `token_ids` repeats in their places."""
    same = sum(mine == theirs for mine, theirs in zip(token_ids, unpruned, strict=False))
    return same / len(unpruned) if unpruned else float(not token_ids)


def _said(text: str) -> str:
    said = after_thought(text)
    return text if said is None else said
