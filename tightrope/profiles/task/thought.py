"""The thought that a model may write before its answer."""

from __future__ import annotations

from tightrope.runtime.thought import BEGIN, END


def after_thought(text: str) -> str | None:
    """What follows the thought; None where a thought was begun and never ended."""
    said = text.rpartition(END)[2]
    return None if BEGIN in said else said.strip()
