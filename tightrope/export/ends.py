"""Where a Hugging Face model ends an answer: as transformers' `generate` does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def end_ids(
    generation_config: Any, texts: Iterable[Mapping[str, Any]], tokenizer_eos: int | None
) -> frozenset[int]:
    """The ids of a loaded model's `generation_config`, which generation_config.json decides.

    texts: generation_config.json and config.json as they stand. Where neither names an end, what
    is left is the default of a Python class: it counts only if the tokenizer's own end is the
    same, for an ordinary word never ends an answer.
    """
    found = generation_config.eos_token_id
    ids = frozenset([found] if isinstance(found, int) else found or ())
    named = any(
        isinstance(part, Mapping) and part.get("eos_token_id") is not None
        for text in texts
        for part in (text, text.get("text_config"))
    )
    return ids if named else ids & {tokenizer_eos}
