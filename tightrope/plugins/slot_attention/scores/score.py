"""What a score is: what a slot is worth, and so which one is given up next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple


class PolicyNumbers(NamedTuple):
    """The eight numbers of a policy, in the order in which graphs read them."""

    decay: Any
    attention: Any
    position: Any
    key_norm: Any
    score_window: Any
    pool: Any
    sinks: Any
    recent: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What one call knows of slots and new tokens: arrays in a reference, values in a body.

    In a body a leading axis L may stand before N: then all layers are scored at once, and
    `policy` has it too.
    """

    mass_old: Any
    """float32 [N,Hkv,C], attention that each slot received from the queries that count"""
    mass_new: Any
    """float32 [N,Hkv,S], the same of the new tokens"""
    key: Any
    """[N,Hkv,S,D]"""
    slot_score: Any
    """float32 [N,Hkv,C], 0 where the slot is empty"""
    query_position: Any
    """int32 [N,S], -1 for padding"""
    policy: PolicyNumbers
    slot_key: Any = None
    """[N,Hkv,U,D]; None where all layers are scored at once"""
    pool_kernel: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One way to score; the lowest scores leave first.

    Both functions return the scores of the slots float32 [N,Hkv,C] and of the new tokens
    [N,Hkv,S] after the call; whether a slot is empty or a token padding is not their business.
    """

    name: str
    paper: str
    reference: Callable[[Evidence], tuple[Any, Any]]
    """In numpy: the oracle of `emit`."""
    emit: Callable[[Any, Evidence, bool], tuple[Any, Any]]
    """The same with an OpBuilder; the flag says that S is 1."""
    reads_slots: bool = False
    """Whether it needs `slot_key`: it is then emitted layer by layer."""
