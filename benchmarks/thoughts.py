"""What a thought is worth that may have so many tokens and no more: it is closed by force."""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer

import tightrope as tr
from tightrope.profiles.task.score import rightness
from tightrope.profiles.task.tally import Tally
from tightrope.profiles.task.task import Item, Task
from tightrope.profiles.task.thought import END_THOUGHT

CAPS = (2, 4, 8, 12, 16, 24, 32, 48)
ANSWER_TOKENS = 8


def capped(bundle: str, task: Task) -> dict[str, Any]:
    """Accuracy of a task's questions by the cap on the tokens between a thought's markers."""
    model = tr.load(bundle)
    close = Tokenizer.from_file(f"{bundle}/tokenizer.json").token_to_id(END_THOUGHT)
    right = dict.fromkeys(CAPS, 0.0)
    for item in task.items:
        prompt = model.token_ids(list(item.messages), len(item.images), True)
        free = model.generate(prompt, images=item.images, max_tokens=256)
        for cap in CAPS:
            right[cap] += _right(model, item, prompt, free, cap, close)
    tallies = {str(cap): Tally(n=len(task.items), right=found) for cap, found in right.items()}
    return {cap: tally.to_dict() for cap, tally in tallies.items()}


def _right(
    model: tr.Model, item: Item, prompt: list[int], free: tr.Answer, cap: int, close: int
) -> float:
    begin = 1  # the marker that opens it
    if close not in free.token_ids or free.token_ids.index(close) - begin <= cap:
        return rightness(item, free.text) or 0.0
    said = [*free.token_ids[: begin + cap], close]
    answer = model.generate([*prompt, *said], images=item.images, max_tokens=ANSWER_TOKENS)
    return rightness(item, f"{END_THOUGHT} {answer.text}") or 0.0
