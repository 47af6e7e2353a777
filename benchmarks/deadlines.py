"""Are deadlines kept? Quiet, under a load that comes and goes, and after one that stays.

tightrope profile mix.bundle --task mix
python benchmarks/deadlines.py mix.bundle mix

Asked are the task's questions with short answers: those that the caller gives four tokens. One
picture in ten is of a photograph's size and format, a JPEG of 1080p or 4K; these are told apart:
decoding 4K alone takes longer than most deadlines last. Deadlines lie between 1.2 x the p95 of the
fastest point and the p50 of the slowest, both measured first, under the same load, with the task's
own pictures; where nothing lies between, as under a load that comes and goes, up to the p95 of the
slowest. A request is held if a complete answer came in time: with "stop", or at max_tokens; of any
other one it is recorded what was expected. Whoever is refused asks the next question when the time
of this one is over, as a camera does. Before and after a step deadlines are such that the loaded
machine can keep them.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import multiprocessing.synchronize
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import IO, Any

import numpy as np
from measuring import record
from PIL import Image

import tightrope as tr
from tightrope.profiles.task.task import Item, Task, read_task
from tightrope.runtime.planners import planner_of

MAX_TOKENS = 4
LONG = ("list", "count", "comparison")
"""Types whose answers are long, or follow a thought."""
BURST_S = (1.0, 6.0)
"""A burst of the load, and the pause behind it, last so long: drawn evenly."""
LARGE = ((1920, 1080), (3840, 2160))
LARGE_SHARE = 0.1
RUNS = 40
"""To measure the fastest and the slowest point by, at least."""
RANGE_S = 30.0
"""Longer than a few bursts, for which both are measured in turn."""
BEFORE, AFTER = 12, 20
"""Requests before and after a step of the machine's speed."""
LEARNT = 3
"""Requests after a step that may be missed while it is seen."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("task", type=Path)
    parser.add_argument("--requests", type=int, default=1050)
    parser.add_argument("--steps", type=int, default=60, help="times that the load is switched on")
    parser.add_argument("--loads", nargs="+", choices=LOADS, default=list(LOADS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", default="deadlines", help="of the record")
    given = parser.parse_args()
    task = read_task(given.task)
    figures: dict[str, Any] = {"requests": given.requests}
    for load in given.loads:
        # A process of its own would begin at the pace of the file; so does a model that is loaded.
        model = tr.load(given.bundle, live=False)
        asker = Asker(model, task, np.random.default_rng([given.seed, len(load)]))
        with LOADS[load](given.seed):
            figures[load] = asker.under_load(given.requests)
        print(load, figures[load], flush=True)
    if given.steps:
        asker = Asker(tr.load(given.bundle, live=False), task, np.random.default_rng(given.seed))
        figures["after a step"] = asker.after_steps(given.steps)
    record(given.name, figures)


class Asker:
    """Asks questions of a task with deadlines."""

    def __init__(self, model: tr.Model, task: Task, rng: np.random.Generator) -> None:
        self._model, self._rng = model, rng
        self._items = [item for item in task.items if item.type not in LONG]
        model.warm_up()
        self._points = planner_of(model._loaded, None).points

    def under_load(self, count: int) -> dict[str, Any]:
        low, *highs = self._range()
        high = next((high for high in highs if low < high), None)
        if high is None:
            raise SystemExit(f"no deadline lies between {low:.0f} ms and the slowest point's times")
        verdicts = [self._ask(float(self._rng.uniform(low, high))) for _ in range(count)]
        sizes = {verdict["size"]: None for verdict in verdicts}
        return {
            "deadlines_ms": [round(low, 1), round(high, 1)],
            "up_to": "p50 of the slowest" if high == highs[0] else "p95 of the slowest",
            **told(verdicts),
            "not_held": [
                {"request": number, **verdict["about"], "size": verdict["size"]}
                for number, verdict in enumerate(verdicts)
                if verdict["outcome"] != "held"
            ],
            "by_size": {
                size: told([verdict for verdict in verdicts if verdict["size"] == size])
                for size in sizes
            },
        }

    def after_steps(self, repetitions: int) -> dict[str, Any]:
        """The same deadline before and after a load begins; the pace is learnt meanwhile."""
        with steady(0):  # what the loaded machine can do
            low, *_ = self._range()
        rows: list[list[Verdict]] = []
        for _ in range(repetitions):
            deadline = float(self._rng.uniform(low, 2 * low))
            for _ in range(BEFORE):
                self._ask(deadline)
            with steady(0):
                rows.append([self._ask(deadline) for _ in range(AFTER)])
        later = [verdict for row in rows for verdict in row[LEARNT:]]
        return {
            "repetitions": repetitions,
            "deadlines_ms": [round(low, 1), round(2 * low, 1)],
            f"requests {LEARNT + 1} to {AFTER}": told(later),
            "missed_percent_by_place": [
                round(100 * float(np.mean([row[at]["outcome"] != "held" for row in rows])), 1)
                for at in range(AFTER)
            ],
        }

    def _range(self) -> tuple[float, float, float]:
        """1.2 x the p95 of the fastest point, the p50 and the p95 of the slowest, in ms."""
        times = [self._times(point, 3) for point in self._points]
        order = np.argsort([median(found) for found in times])
        fastest, slowest = (self._points[int(order[place])] for place in (0, -1))
        first, last = list[float](), list[float]()
        ends = time.monotonic() + RANGE_S
        while len(last) < RUNS or time.monotonic() < ends:
            first += self._times(fastest, 1)
            last += self._times(slowest, 1)
        p50, p95 = np.percentile(last, [50, 95])
        return 1.2 * float(np.percentile(first, 95)), float(p50), float(p95)

    def _times(self, point: tr.OperatingPoint, runs: int) -> list[float]:
        found = []
        for _ in range(runs):
            item = self._item()
            self._model.forget_images()
            answer = self._model.generate(
                list(item.messages), images=item.images, max_tokens=MAX_TOKENS, point=point
            )
            found.append(answer.timings.total_ms)
        return found

    def _item(self) -> Item:
        return self._items[int(self._rng.integers(len(self._items)))]

    def _ask(self, deadline_ms: float) -> Verdict:
        item = self._item()
        images: list[Any] = list(item.images)
        size = "the task's own"
        if images and self._rng.random() < LARGE_SHARE:
            width, height = LARGE[int(self._rng.integers(len(LARGE)))]
            images[0], size = enlarged(images[0], (width, height)), f"{height}p JPEG"
        self._model.forget_images()
        started = time.perf_counter()
        try:
            answer = self._model.generate(
                list(item.messages),
                images=images,
                max_tokens=MAX_TOKENS,
                budget=tr.Budget(deadline_ms=deadline_ms),
            )
        except tr.BudgetUnreachable as error:
            time.sleep(deadline_ms / 1e3)
            about = {"refused": round(deadline_ms, 1), "slowed": error.slowed}
            if error.fastest_ms is not None:
                about["fastest_ms"] = round(error.fastest_ms, 1)
            return {"outcome": "refused", "over": 0.0, "point": None, "size": size, "about": about}
        # What the caller's own watch says, not the answer's.
        took = (time.perf_counter() - started) * 1e3
        in_time = "held" if answer.deadline_met else "cut"
        outcome = "late" if took > deadline_ms else in_time
        assert answer.plan is not None
        over, plan = max(0.0, took / deadline_ms - 1), answer.plan
        about = {
            outcome: round(deadline_ms, 1),
            "took_ms": round(took, 1),
            "p50_ms": round(plan.total.p50_ms, 1),
            "p99_ms": round(plan.total.p99_ms, 1),
            "speed": round(plan.speed, 2),
        }
        return {
            "outcome": outcome,
            "over": over,
            "point": plan.point,
            "size": size,
            "about": about,
        }


Verdict = dict[str, Any]


def told(verdicts: list[Verdict]) -> dict[str, Any]:
    counts = Counter(verdict["outcome"] for verdict in verdicts)
    asked, admitted = len(verdicts), len(verdicts) - counts["refused"]
    late = [verdict["over"] for verdict in verdicts if verdict["outcome"] == "late"]
    return {
        "asked": asked,
        **{name: counts[name] for name in ("held", "cut", "late", "refused")},
        "held_percent": round(100 * counts["held"] / asked, 2),
        "held_of_admitted_percent": round(100 * counts["held"] / max(1, admitted), 2),
        "admitted_percent": round(100 * admitted / asked, 2),
        "overshoot_percent": {
            "median": round(100 * median(late), 1) if late else 0.0,
            "largest": round(100 * max(late), 1) if late else 0.0,
        },
        "points_used": len({str(verdict["point"]) for verdict in verdicts if verdict["point"]}),
    }


def enlarged(path: Path | IO[bytes], size: tuple[int, int]) -> bytes:
    """The picture as a camera's JPEG: scaled to fit, on grey, where it was square."""
    with Image.open(path) as picture:
        side = min(size)
        scaled = picture.convert("RGB").resize((side, side))
    whole = Image.new("RGB", size, (128, 128, 128))
    whole.paste(scaled, ((size[0] - side) // 2, (size[1] - side) // 2))
    stream = io.BytesIO()
    whole.save(stream, "JPEG", quality=90)
    return stream.getvalue()


@contextmanager
def quiet(seed: int) -> Iterator[None]:
    yield


@contextmanager
def _loaded(seed: int, bursts: bool) -> Iterator[None]:
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    processes = [
        context.Process(target=_burn, args=(stop, seed, bursts), daemon=True) for _ in range(2)
    ]
    for process in processes:
        process.start()
    time.sleep(1)
    try:
        yield
    finally:
        stop.set()
        for process in processes:
            process.join()


def in_bursts(seed: int) -> Any:
    """Both cores are loaded by another program, now and then."""
    return _loaded(seed, bursts=True)


def steady(seed: int) -> Any:
    """Both cores are loaded all the time."""
    return _loaded(seed, bursts=False)


def _burn(stop: multiprocessing.synchronize.Event, seed: int, bursts: bool) -> None:
    rng = np.random.default_rng(seed)  # the same for both: they burst together
    while not stop.is_set():
        end = time.monotonic() + (rng.uniform(*BURST_S) if bursts else 1.0)
        while time.monotonic() < end and not stop.is_set():
            sum(range(10_000))
        if bursts:
            stop.wait(rng.uniform(*BURST_S))


LOADS = {"quiet": quiet, "bursts": in_bursts}


if __name__ == "__main__":
    main()
