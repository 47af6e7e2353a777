"""Models without arithmetic on a clock that a script moves: deadlines are tested on them."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tightrope.bundle import MANIFEST, Bundle
from tightrope.latency import PERCENTS, LatencyModel, Spread
from tightrope.latency_file import LatencyRecord
from tightrope.point import OperatingPoint
from tightrope.quality_file import MeasuredPoint, Outcome, Quality, QualityKey
from tightrope.runtime.backends.null import NullBackend
from tightrope.runtime.model import Model
from tightrope.runtime.planner import Planner

END, NEWLINE, BEGIN_THOUGHT, END_THOUGHT = 1, 253, 254, 255
CLOSE = (NEWLINE, END_THOUGHT, NEWLINE, NEWLINE)
_TURNS = (
    "{% for m in messages %}{{ '<user>' if m['role'] == 'user' else '<assistant>' }}"
    "{{ m['content'] }}{% endfor %}"
)
TEMPLATES = {
    # Qwen3's way: left out by an empty thought.
    "told": _TURNS
    + "{% if add_generation_prompt %}<assistant>{% if enable_thinking is defined and "
    "enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}",
    # DeepSeek-R1's way: always opened.
    "opened": _TURNS + "{% if add_generation_prompt %}<assistant><think>\n{% endif %}",
    # A template that opens or closes it.
    "both": _TURNS
    + "{% if add_generation_prompt %}<assistant>{% if enable_thinking is defined and "
    "enable_thinking is false %}<think>\n\n</think>\n\n{% else %}<think>\n{% endif %}{% endif %}",
}


def thinking_bundle(source: Path, folder: Path, template: str) -> Path:
    """The small text model with marks of thoughts in its vocabulary, and a template that says so.

    Its last three tokens become a newline and the two marks.
    """
    shutil.copytree(source, folder, copy_function=os.link)
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    words = {NEWLINE: "\n", BEGIN_THOUGHT: "<think>", END_THOUGHT: "</think>"}
    vocabulary = {number: token for token, number in tokenizer["model"]["vocab"].items()} | words
    tokenizer["model"]["vocab"] = {token: number for number, token in vocabulary.items()}
    plain = tokenizer["added_tokens"][0] | {"special": False}
    marks = (BEGIN_THOUGHT, END_THOUGHT)
    tokenizer["added_tokens"] += [plain | {"id": i, "content": words[i]} for i in marks]
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    for name, text in (
        ("tokenizer.json", json.dumps(tokenizer)),
        ("chat_template.jinja", TEMPLATES[template]),
    ):
        content = text.encode()
        entry = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        manifest["files"][name] = entry
        (folder / name).unlink()
        (folder / name).write_bytes(content)
    (folder / MANIFEST).unlink()
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    return folder


_NUMBERS = itertools.count()


class Machine(NullBackend):
    """Says the same tokens to every request, then the last for ever; its calls alone take time."""

    def __init__(
        self,
        bundle: Bundle,
        tokens: Sequence[int],
        *,
        step_s: float | Callable[[int], float] = 0.0,
        chunk_s: float | Callable[[int], float] = 0.0,
    ) -> None:
        """Seconds of each step and of each call of a prefill, or what says so by their number."""
        super().__init__(bundle.manifest.dims, lambda call: tokens[min(call, len(tokens) - 1)])
        # A device remembers what its newest requests met: each clock needs one of its own.
        self.device = f"null {next(_NUMBERS)}"
        self.now, self.steps, self.chunks = 0.0, 0, 0
        self.step_s, self.chunk_s = step_s, chunk_s

    def clock(self) -> float:
        return self.now

    def prefill(self, *arguments: Any) -> Any:
        self.now += self.chunk_s(self.chunks) if callable(self.chunk_s) else self.chunk_s
        self.chunks += 1
        self._calls = 0
        return super().prefill(*arguments)

    def decode(self, *arguments: Any) -> Any:
        self.now += self.step_s(self.steps) if callable(self.step_s) else self.step_s
        self.steps += 1
        return super().decode(*arguments)


def letters(bundle: Bundle, text: str) -> list[int]:
    """Token ids of a text of the small models, one a character."""
    content = json.loads((bundle.path / "tokenizer.json").read_text(encoding="utf-8"))
    return [content["model"]["vocab"][letter] for letter in text]


def planned(
    machine: Machine, bundle: Bundle, record: LatencyRecord, quality: Quality | None = None
) -> Model:
    """A model that plans by this record and this quality, as if the files were there."""
    model = Model(bundle, machine, machine.clock)
    planner = Planner(model._loaded, record, quality)
    planner.warm = True
    model._loaded.planners[None] = planner
    return model


def quality_of(
    scores: Mapping[OperatingPoint, Sequence[float]],
    *,
    tokens: int = 4,
    thinking: int = 0,
    beaten: Mapping[OperatingPoint, OperatingPoint] | None = None,
) -> Quality:
    """A quality file's content: scores of the questions by point."""

    def outcome(number: int, score: float) -> Outcome:
        return Outcome(
            question=f"{number:04}",
            score=score,
            text="x",
            completion_tokens=tokens,
            thinking_tokens=thinking,
            finish_reason="stop",
        )

    return Quality(
        key=QualityKey(
            bundle="ab" * 32, task="cd" * 32, task_name="mix", measure="accuracy", max_tokens=64
        ),
        points=tuple(
            MeasuredPoint(
                point=point,
                outcomes=tuple(map(outcome, range(len(row)), row)),
                beaten_by=(beaten or {}).get(point),
            )
            for point, row in scores.items()
        ),
    )


def spread_of(ratios: Sequence[float]) -> Spread:
    """As a fit keeps it."""
    return Spread(
        mean=float(np.mean(ratios)),
        ratios=tuple(float(value) for value in np.percentile(ratios, PERCENTS)),
    )


def steady(model: LatencyModel, width: float = 0.0) -> LatencyModel:
    """The model as if requests took what it says, up to a share of `width` more or less."""
    exact = Spread(mean=1.0, ratios=tuple(1 + width * (p - 50) / 50 for p in PERCENTS))
    return replace(model, ttft=exact, tpot=exact, total=exact)
