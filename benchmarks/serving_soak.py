"""Two thousand mixed requests of eight clients: is an answer lost or doubled, does memory grow?

    python benchmarks/serving_soak.py reference.bundle tests/data/scenes

Questions with and without pictures, whole and in events, clients that leave, bad bodies and bodies
that are too long. Every answer is held against what the library says to the same question, and none
may come under the number of another. It exits with 1 where anything is not as it should be.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from measuring import record
from serving import CHAT, Client, question, server

import tightrope as tr
from tightrope.profiles.task.task import read_task

CLIENTS = 8
SETTLED_AFTER = 500
SAMPLE_EVERY = 10
QUESTIONS = 24
TEXTS = ("what is it ?", "where is the star ?", "how many objects are there ?")
"""Asked without a picture."""
BODY_MB = 4
MOST_GROWTH_PERCENT = 2.0
KINDS = {"whole": 0.5, "events": 0.25, "leave": 0.1, "bad": 0.1, "long": 0.05}
LIMITS = ("--max-body-mb", str(BODY_MB), "--queue-per-client", "64", "--queue", "64")
EXPECTED = {"answered", "left", "refused"}


@dataclass
class Found:
    """What came of the requests, of all clients."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    numbers: Counter[str] = field(default_factory=Counter)
    """Of replies, as the server gave them."""
    memory: list[tuple[int, float]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, outcome: str) -> int:
        """How many requests are done."""
        with self.lock:
            self.counts[outcome] += 1
            return self.counts.total()


Question = tuple[str, list[Any], str]
"""Text, pictures, and what is answered."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("task", type=Path)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    questions = answered(given.bundle, given.task)
    found, numbers, lock = Found(), iter(range(given.requests)), threading.Lock()

    def work(client: Client, rng: np.random.Generator) -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            try:
                outcome = one(client, number, questions, rng, found)
            except (OSError, http.client.HTTPException) as error:
                outcome = type(error).__name__
            done = found.note(outcome)
            if done % SAMPLE_EVERY == 0:
                found.memory.append((done, client.resident_bytes()))

    began = time.monotonic()
    with server(str(given.bundle), *LIMITS) as port:
        threads = [
            threading.Thread(
                target=work, args=(Client(port), np.random.default_rng([given.seed, place]))
            )
            for place in range(CLIENTS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    doubled = [name for name, times in found.numbers.items() if times > 1]
    memory = growth(found.memory, given.requests)
    told = {
        "requests": given.requests,
        "seconds": round(time.monotonic() - began, 1),
        "outcomes": dict(found.counts),
        "wrong": found.wrong[:10],
        "doubled": doubled[:10],
        "memory": memory,
    }
    record("serving_soak", told)
    lost = given.requests - sum(found.counts[name] for name in EXPECTED)
    grown = memory["percent_over_the_run"] >= MOST_GROWTH_PERCENT
    sys.exit(bool(lost or found.wrong or doubled or grown))


def answered(bundle: Path, task: Path) -> list[Question]:
    """Questions, with pictures and without, and what the library answers."""
    model = tr.load(bundle, live=False)
    items = read_task(task).items[:QUESTIONS]
    asked = [(item.messages[-1]["content"], list(item.images)) for item in items]
    asked += [(text, []) for text in TEXTS]
    return [
        (text, images, model.generate(text, images, max_tokens=8).text) for text, images in asked
    ]


def one(
    client: Client,
    number: int,
    questions: list[Question],
    rng: np.random.Generator,
    found: Found,
) -> str:
    """Ask once; how it ended."""
    text, images, expected = questions[int(rng.integers(len(questions)))]
    kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
    body = question(text, images, max_tokens=8, stream=kind in ("events", "leave"))
    if kind == "leave":
        client.hang_up(CHAT, body, int(rng.choice([0, rng.integers(1, 400)])))
        return "left"
    if kind == "bad":
        status, _ = client.post(CHAT, body[: len(body) // 2])
        return "refused" if status == 400 else f"bad body: {status}"
    if kind == "long":
        status, _ = client.post(CHAT, b" " * (BODY_MB * 10**6 + 1))
        return "refused" if status == 413 else f"long body: {status}"
    status, content = client.post(CHAT, body)
    name, said = ("", "") if status != 200 else (joined if kind == "events" else whole)(content)
    with found.lock:
        found.numbers[name or f"none: {number}"] += 1
        if status != 200 or said != expected:
            found.wrong.append(f"request {number}: status {status}, {said!r} for {expected!r}")
            return "wrong"
    return "answered"


def whole(content: bytes) -> tuple[str, str]:
    """Number and text of a reply in one piece."""
    reply = json.loads(content)
    return reply["id"], reply["choices"][0]["message"]["content"]


def joined(content: bytes) -> tuple[str, str]:
    """The same of a reply in events."""
    lines = [line[6:] for line in content.decode().split("\n\n") if line.startswith("data: {")]
    events = [json.loads(line) for line in lines]
    choices = [choice for event in events for choice in event.get("choices", [])]
    return events[0]["id"], "".join(choice["delta"].get("content") or "" for choice in choices)


def growth(memory: list[tuple[int, float]], requests: int) -> dict[str, Any]:
    """By how much resident memory grows behind the first requests, with a 95 % interval."""
    late = np.array(sorted(memory))
    late = late[late[:, 0] >= min(SETTLED_AFTER, requests // 2)]
    place, resident = late[:, 0] - late[:, 0].mean(), late[:, 1]
    slope = float((place @ resident) / (place @ place))
    left = resident - resident.mean() - slope * place
    error = float(np.sqrt((left @ left) / (len(late) - 2) / (place @ place)))
    span = float(late[-1, 0] - late[0, 0])
    share = 100 * span / float(resident.mean())
    return {
        "samples": len(late),
        "mean_mb": round(float(resident.mean()) / 1e6, 1),
        "percent_over_the_run": round(slope * share, 2),
        "interval": [round((slope + side * 1.96 * error) * share, 2) for side in (-1, 1)],
    }


if __name__ == "__main__":
    main()
