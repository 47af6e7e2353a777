"""What a JPEG costs whose decoder makes no more pixels than a resolution needs, and what it loses.

python benchmarks/jpeg_detail.py BUNDLE TASK

The task's pictures as a camera's JPEGs of 1080p and 4K, each question asked with all of their
pixels and with what a budget decodes, in turn: milliseconds until the tower's inputs are there,
answers that are right, and answers that are the same.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from deadlines import LARGE, MAX_TOKENS, enlarged
from measuring import record, spread

import tightrope as tr
from tightrope.profiles.task.score import rightness
from tightrope.profiles.task.task import Item, read_task

EVER = tr.Budget(deadline_ms=1e7)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("task", type=Path)
    parser.add_argument("--questions", type=int, default=300)
    given = parser.parse_args()
    model = tr.load(given.bundle, live=False)
    items = [item for item in read_task(given.task).items if len(item.images) == 1]
    step = max(1, len(items) // given.questions)
    chosen = items[::step][: given.questions]
    resolutions = model.bundle.manifest.vision.resolutions  # type: ignore[union-attr]
    rows = [
        compared(model, chosen, size, resolution) for size in LARGE for resolution in resolutions
    ]
    record("jpeg_detail", {"questions": len(chosen), "rows": rows})


def compared(
    model: tr.Model, items: list[Item], size: tuple[int, int], resolution: int
) -> dict[str, Any]:
    point = tr.OperatingPoint(resolution=resolution)
    kinds: dict[str, Any] = {"whole": None, "with a budget": EVER}
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    right = dict.fromkeys(kinds, 0.0)
    same = 0
    for item in items:
        picture, texts = enlarged(item.images[0], size), []
        for kind, budget in kinds.items():
            model.forget_images()
            answer = model.generate(
                list(item.messages),
                images=[picture],
                max_tokens=MAX_TOKENS,
                point=point,
                budget=budget,
            )
            times[kind].append(answer.timings.image_ms)
            right[kind] += rightness(item, answer.text) or 0.0
            texts.append(answer.text)
        same += texts[0] == texts[1]
    return {
        "size": f"{size[0]} x {size[1]}",
        "resolution": resolution,
        "image_ms": {kind: spread(found) for kind, found in times.items()},
        "right_percent": {kind: 100 * count / len(items) for kind, count in right.items()},
        "same_percent": 100 * same / len(items),
    }


if __name__ == "__main__":
    main()
