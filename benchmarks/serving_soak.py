"""Two thousand mixed requests of eight clients: is an answer lost or doubled, does memory grow?

    python benchmarks/serving_soak.py reference.bundle tests/data/scenes

Questions with and without pictures, whole and in events, clients that leave, bad bodies and bodies
that are too long. Every answer is held against what the library says to the same question.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from measuring import record
from serving import CHAT, Client, question, server

import tightrope as tr
from tightrope.profiles.task.task import read_task

CLIENTS = 8
SETTLED_AFTER = 500
QUESTIONS = 24
BODY_MB = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("task", type=Path)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    model = tr.load(given.bundle)
    items = read_task(given.task).items[:QUESTIONS]
    asked = [(item.messages[-1]["content"], list(item.images)) for item in items]
    expected = [model.generate(text, images=images, max_tokens=8).text for text, images in asked]
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    memory: list[tuple[int, float]] = []
    lock, numbers = threading.Lock(), iter(range(given.requests))

    def one(client: Client, number: int, rng: np.random.Generator) -> str:
        place = int(rng.integers(len(asked)))
        text, images = asked[place]
        kind = rng.choice(
            ["whole", "events", "leave", "bad", "long"], p=[0.5, 0.25, 0.1, 0.1, 0.05]
        )
        body = question(text, images, max_tokens=8, stream=bool(kind in ("events", "leave")))
        if kind == "whole":
            status, content = client.post(CHAT, body)
            said = json.loads(content)["choices"][0]["message"]["content"] if status == 200 else ""
        elif kind == "events":
            status, content = client.post(CHAT, body)
            said = joined(content)
        elif kind == "leave":
            client.hang_up(CHAT, body, int(rng.integers(1, 400)))
            return "left"
        elif kind == "bad":
            status, _ = client.post(CHAT, body[: len(body) // 2])
            return "refused" if status == 400 else f"bad body: {status}"
        else:
            status, _ = client.post(CHAT, b" " * (BODY_MB * 10**6 + 1))
            return "refused" if status == 413 else f"long body: {status}"
        if status != 200 or said != expected[place]:
            wrong.append(f"request {number}: status {status}, {said!r} for {expected[place]!r}")
            return "wrong"
        return "answered"

    def work(client: Client, rng: np.random.Generator) -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            try:
                outcome = one(client, number, rng)
            except OSError as error:
                outcome = type(error).__name__
            with lock:
                counts[outcome] += 1
                done = counts.total()
            if done % 25 == 0:
                memory.append((done, client.resident_bytes()))

    began = time.monotonic()
    with server(
        str(given.bundle),
        "--max-body-mb",
        str(BODY_MB),
        "--queue-per-client",
        "64",
        "--queue",
        "64",
    ) as port:
        threads = [
            threading.Thread(
                target=work, args=(Client(port), np.random.default_rng([given.seed, i]))
            )
            for i in range(CLIENTS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    record(
        "serving_soak",
        {
            "requests": given.requests,
            "seconds": round(time.monotonic() - began, 1),
            "outcomes": dict(counts),
            "wrong": wrong[:10],
            "memory": growth(memory, given.requests),
        },
    )


def joined(content: bytes) -> str:
    """The text of an answer in events."""
    events = [line[6:] for line in content.decode().split("\n\n") if line.startswith("data: {")]
    choices = [choice for event in events for choice in json.loads(event).get("choices", [])]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


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
