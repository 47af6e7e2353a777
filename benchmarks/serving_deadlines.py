"""Are deadlines kept over HTTP while requests come as they please, and is it better than in turn?

    tightrope profile mix.bundle --task mix
    python benchmarks/serving_deadlines.py mix.bundle mix

Requests arrive open-loop by a Poisson process, at shares of what the engine answers of the task's
own pictures at its fastest point, one after another. Questions, pictures and deadlines are those of
`deadlines.py`: short answers, one picture in ten a large JPEG, and deadlines from 1.2 x the p95 of
the fastest point up to the p50 of the slowest. No picture comes twice. Each rate is run with the
earliest due first and, in the same run, first come first served: without admission by what others
were promised, as one queue whose length counts. Held is a complete answer whose last byte came in
time by the client's own watch.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from deadlines import LARGE, LARGE_SHARE, LONG, MAX_TOKENS, RUNS, enlarged
from measuring import record
from PIL import Image
from serving import CHAT, Client, question, server

import tightrope as tr
from tightrope.profiles.task.task import Item, read_task
from tightrope.runtime.planners import planner_of

LOADS = (0.5, 0.7, 0.9)
OWN = "the task's own"
ORDERS = {
    "earliest due first": ("-m", "tightrope", "serve"),
    "first come first served": (str(Path(__file__)), "--serve"),
}


@dataclass(frozen=True, slots=True)
class Ask:
    """A request and when it is sent."""

    gap_s: float
    """Behind the one before."""
    limit_ms: float
    size: str
    body: bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("task", type=Path)
    parser.add_argument("--requests", type=int, default=1000, help="at each rate and in each order")
    parser.add_argument("--large", type=float, default=LARGE_SHARE, help="share of large JPEGs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", default="serving_deadlines", help="of the record")
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    items = [item for item in read_task(given.task).items if item.type not in LONG]
    low, high, busy_ms = measured(given.bundle, items, rng)
    if low >= high:
        raise SystemExit(f"no deadline lies between {low:.0f} and {high:.0f} ms")
    figures: dict[str, Any] = {
        "requests": given.requests,
        "deadlines_ms": [round(low, 1), round(high, 1)],
        "capacity_per_second": round(1e3 / busy_ms, 2),
        "large_share": given.large,
    }
    for load in LOADS:
        asks = [
            made(number, items, busy_ms / 1e3 / load, (low, high), given.large, rng)
            for number in range(given.requests)
        ]
        for order, program in ORDERS.items():
            limited = ("--queue", "256", "--queue-per-client", "256")
            with server(str(given.bundle), *limited, program=program) as port:
                outcomes = played(port, asks)
            figures[f"{load:.0%}, {order}"] = by_size(asks, outcomes)
            print(f"{load:.0%}", order, told(outcomes), flush=True)
    record(given.name, figures)


def measured(
    bundle: Path, items: list[Item], rng: np.random.Generator
) -> tuple[float, float, float]:
    """Shortest and longest deadline, and how long the fastest point takes a request, in ms."""
    model = tr.load(bundle, live=False)
    model.warm_up()

    def times(point: tr.OperatingPoint, runs: int) -> list[float]:
        found = []
        for _ in range(runs):
            item = items[int(rng.integers(len(items)))]
            model.forget_images()
            answer = model.generate(
                list(item.messages), images=item.images, max_tokens=MAX_TOKENS, point=point
            )
            found.append(answer.timings.total_ms)
        return found

    points = planner_of(model._loaded, None).points
    order = np.argsort([np.median(times(point, 3)) for point in points])
    fastest = times(points[int(order[0])], RUNS)
    slowest = times(points[int(order[-1])], RUNS)
    return (
        1.2 * float(np.percentile(fastest, 95)),
        float(np.percentile(slowest, 50)),
        float(np.mean(fastest)),
    )


def made(
    number: int,
    items: list[Item],
    mean_gap_s: float,
    limits_ms: tuple[float, float],
    large: float,
    rng: np.random.Generator,
) -> Ask:
    """One request of a Poisson process."""
    item = items[int(rng.integers(len(items)))]
    limit, size = float(rng.uniform(*limits_ms)), OWN
    images = [unlike(path, number) for path in item.images]
    if images and rng.random() < large:
        wide, high = LARGE[int(rng.integers(len(LARGE)))]
        images[0], size = enlarged(io.BytesIO(images[0]), (wide, high)), f"{high}p JPEG"
    text = item.messages[-1]["content"]
    body = question(text, images, max_tokens=MAX_TOKENS, deadline_ms=limit)
    return Ask(float(rng.exponential(mean_gap_s)), limit, size, body)


def unlike(path: Path, number: int) -> bytes:
    """The picture but for one pixel, so that it is none that the server has seen."""
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    picture.putpixel((0, 0), (number % 256, number // 256 % 256, 0))
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def played(port: int, asks: list[Ask]) -> list[str]:
    """What came of each request, sent when its time has come whatever became of the others."""
    outcomes = [""] * len(asks)

    def send(number: int) -> None:
        client, limit_ms = Client(port), asks[number].limit_ms
        began = time.perf_counter()
        try:
            status, content = client.post(CHAT, asks[number].body)
        except (OSError, http.client.HTTPException) as error:
            outcomes[number] = type(error).__name__
            return
        took = (time.perf_counter() - began) * 1e3
        if status != 200:
            outcomes[number] = "refused" if status in (422, 429, 503) else f"status {status}"
            return
        met = json.loads(content)["tightrope"]["deadline_met"]
        outcomes[number] = "late" if took > limit_ms else "held" if met else "cut"

    threads = []
    due = time.perf_counter()
    for number, ask in enumerate(asks):
        due += ask.gap_s
        time.sleep(max(0.0, due - time.perf_counter()))
        threads.append(threading.Thread(target=send, args=(number,)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    return outcomes


def by_size(asks: list[Ask], outcomes: list[str]) -> dict[str, Any]:
    sizes = dict.fromkeys(ask.size for ask in asks)
    pairs = list(zip(asks, outcomes, strict=True))
    each = {size: told([found for ask, found in pairs if ask.size == size]) for size in sizes}
    return {**told(outcomes), "by_size": each}


def told(outcomes: list[str]) -> dict[str, Any]:
    counts = Counter(outcomes)
    asked, admitted = len(outcomes), len(outcomes) - counts["refused"]
    return {
        **dict(counts),
        "held_of_asked_percent": round(100 * counts["held"] / asked, 2),
        "held_of_admitted_percent": round(100 * counts["held"] / max(1, admitted), 2),
        "admitted_percent": round(100 * admitted / asked, 2),
    }


def first_come_first_served() -> None:
    """The command, as if every request were due when it came."""
    from dataclasses import replace

    from tightrope.cli import main as command
    from tightrope.runtime.engine import Engine
    from tightrope.runtime.waiting import Load, Waiting

    load, submit = Waiting.load, Engine.submit

    def in_turn(self: Waiting, due: float, now: float) -> Load:
        found = load(self, due, now)
        return replace(found, waiting_ms=found.busy_ms, room_ms=float("inf"), others=0)

    Waiting.load = in_turn  # type: ignore[method-assign]
    Engine.submit = lambda self, work, due=0.0: submit(self, work)  # type: ignore[method-assign]
    sys.argv = ["tightrope", "serve", *sys.argv[2:]]
    command()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        first_come_first_served()
    else:
        main()
