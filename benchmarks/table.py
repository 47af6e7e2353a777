"""Every operating point asks every question once, and what came of it is written down.

python benchmarks/table.py mix.bundle mix mix.table.jsonl

Others replay it: `points.py` reads accuracies, `planning.py` plays planners against each other. It
goes on where it was interrupted. Times are of one request after another; what the tower makes of
an image is used again by the points that share a resolution, and its time is added to each of them
as it was measured for the first.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import tightrope as tr
from tightrope.profiles.measure import Request, measure
from tightrope.profiles.task.score import rightness
from tightrope.profiles.task.task import Item, read_task
from tightrope.quality_file import point_of, point_text
from tightrope.typed import typed

RESOLUTIONS = (336, 224, 168)
METHODS = ("visionzip", "divprune", "flashvlm")
KEPT = ("25%", "12.5%")
EVICTED = (288, 144, 72)
"""KV budgets at everything else, for the planner that chooses a ratio of eviction."""
MAX_TOKENS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One question at one point."""

    point: str
    question: str
    score: float
    text: str
    finish_reason: str
    completion_tokens: int
    thinking_tokens: int
    visual_tokens_kept: int
    ttft_ms: float
    total_ms: float


def points() -> list[tr.OperatingPoint]:
    """Those of one resolution together."""
    found = []
    for resolution in RESOLUTIONS:
        everything = tr.OperatingPoint(resolution=resolution)
        found.append(everything)
        if resolution == max(RESOLUTIONS):
            found += [replace(everything, policy="snapkv", kv_budget=slots) for slots in EVICTED]
        found += [
            replace(everything, selector=method, keep=keep) for method in METHODS for keep in KEPT
        ]
    return found


def read_table(file: Path) -> dict[tr.OperatingPoint, dict[str, Row]]:
    """Rows by point and question; those of points that were not asked everything are left out."""
    table: dict[tr.OperatingPoint, dict[str, Row]] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        row: Row = typed(Row, json.loads(line), file.name)
        table.setdefault(point_of(row.point), {})[row.question] = row
    most = max(map(len, table.values()))
    return {point: rows for point, rows in table.items() if len(rows) == most}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("task", type=Path)
    parser.add_argument("table", type=Path)
    parser.add_argument("--questions", type=int, default=2000)
    given = parser.parse_args()
    items = in_order(read_task(given.task).items)[: given.questions]
    model = tr.load(given.bundle, live=False)
    done = {}
    if given.table.exists():
        done = {point: set(rows) for point, rows in read_every(given.table).items()}
    with given.table.open("a", encoding="utf-8") as stream:
        started, asked = time.monotonic(), 0
        for number, item in enumerate(items):
            for row in rows_of(model, item, done):
                stream.write(json.dumps(asdict(row)) + "\n")
                asked += 1
            stream.flush()
            if asked and number % 50 == 0:
                each = (time.monotonic() - started) / asked
                print(f"{number} of {len(items)}, {1e3 * each:.0f} ms each", file=sys.stderr)


def in_order(items: Sequence[Item]) -> list[Item]:
    """Scattered, so that any beginning is a fair sample of the kinds."""
    return [items[at * 7919 % len(items)] for at in range(len(items))]


def read_every(file: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        values = json.loads(line)
        found.setdefault(values["point"], []).append(values["question"])
    return found


def rows_of(model: tr.Model, item: Item, done: dict[str, set[str]]) -> Iterator[Row]:
    """The question at every point where it is not known yet."""
    seen: dict[int | None, float] = {}
    model.forget_images()
    for point in points():
        if item.id in done.get(point_text(point), ()):
            continue
        (answer,) = measure(model, [request(item, point)], total=1)
        timings = answer.timings
        tower = timings.vision_ms + timings.preprocess_ms
        added = 0.0
        if item.images:
            if timings.vision_ms:
                seen[point.resolution] = tower
            else:
                added = seen[point.resolution]
        score = rightness(item, answer.text)
        assert score is not None
        yield Row(
            point=point_text(point),
            question=item.id,
            score=score,
            text=answer.text,
            finish_reason=answer.finish_reason,
            completion_tokens=answer.usage.completion_tokens,
            thinking_tokens=answer.usage.thinking_tokens,
            visual_tokens_kept=answer.usage.visual_tokens_kept,
            ttft_ms=round(timings.ttft_ms + added, 3),
            total_ms=round(timings.total_ms + added, 3),
        )


def request(item: Item, point: tr.OperatingPoint) -> Request:
    return Request(
        name=item.id, prompt=item.messages, images=item.images, max_tokens=MAX_TOKENS, point=point
    )


Table = dict[tr.OperatingPoint, dict[str, Row]]
Told = dict[str, Any]


if __name__ == "__main__":
    main()
