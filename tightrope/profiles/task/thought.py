"""The thought that a model may write before its answer."""

from __future__ import annotations

BEGIN_THOUGHT, END_THOUGHT = "<think>", "</think>"


def after_thought(text: str) -> str | None:
    """What follows the thought; None where a thought was begun and never ended."""
    said = text.rpartition(END_THOUGHT)[2]
    return None if BEGIN_THOUGHT in said else said.strip()
