"""The same work by peers, in turn: llama.cpp, onnxruntime-genai, OpenVINO GenAI, transformers.

    python benchmarks/peers.py FOLDER [--shapes text smollm2 llava qwen3_vl] [--peers NAME...]

FOLDER keeps checkpoints of random weights, on which no stage's time depends, and what each peer
makes of them; `.cache/peers` an environment for each. Without them the first run takes most of an
hour, `--set-up` does that alone. Every peer answers in a process of its own on as many threads as
the others; processes take turns and rest before each, and who begins changes with the round.

text: Qwen2.5-0.5B's shape. llava: the same behind CLIP-L/336, 576 visual tokens. qwen3_vl: half a
billion behind a tower of 12 blocks, 576 visual tokens. smollm2: SmolLM2-135M's own Q4_1 file. Who
prunes visual tokens is asked twice, with all of them and with a quarter.
`peers_table.py` writes what was recorded into the README.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import peer_weights
import random_checkpoints
from measuring import record, spread
from peer_environments import PEERS, Peer, interpreter, version

PROMPTS, TOKENS, KEEP = (128, 576), 32, 0.25
REST_S = 0.3
"""In which the threads of who answered before stop spinning."""
SMOLLM2 = Path(__file__).resolve().parent.parent / "models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SIDES = Path(__file__).with_name("peer_sides.py")


class Side:
    """A peer's process, which holds one model and answers one question a line."""

    def __init__(self, peer: Peer, model: Path, threads: int) -> None:
        command = [str(interpreter(peer)), str(SIDES), peer.name, str(model), str(threads)]
        self._name = peer.name
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._answer()

    def ask(self, question: dict[str, Any]) -> dict[str, float]:
        """Milliseconds by stage."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, float]:
        assert self._process.stdout is not None
        for line in self._process.stdout:  # peers print more than they are asked
            if line.startswith("{"):
                times: dict[str, float] = json.loads(line)
                return times
        raise SystemExit(f"{self._name} ended before it answered; its words stand above")

    def end(self) -> None:
        self._process.terminate()
        self._process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    shapes = ("text", "smollm2", "llava", "qwen3_vl")
    parser.add_argument("--shapes", nargs="+", choices=shapes, default=shapes)
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--set-up", action="store_true")
    given = parser.parse_args()
    for shape in given.shapes:
        source = SMOLLM2
        if shape != "smollm2":
            source = random_checkpoints.checkpoint(given.folder, shape)
        chosen = [PEERS[name] for name in given.peers if shape in PEERS[name].shapes]
        models = {peer: peer.prepared(source, given.folder / shape) for peer in chosen}
        versions = {peer.name: version(peer) for peer in chosen}
        if given.set_up:
            print(shape, versions)
            continue
        rows = measured(shape, models, given.rounds, given.threads)
        weights = peer_weights.count(source)
        record(
            f"peers_{shape}",
            {
                "threads": given.threads,
                "unit": "ms",
                "rows": rows,
                "bits a weight": {
                    peer.name: round(8 * peer.bytes_read(model) / weights, 2)
                    for peer, model in models.items()
                },
                "versions": versions,
            },
        )


def measured(
    shape: str, models: dict[Peer, Path], rounds: int, threads: int
) -> dict[str, dict[str, Any]]:
    """By peer and question the spread of each stage."""
    found: dict[str, list[dict[str, float]]] = {}
    with ExitStack() as stack:
        sides = {}
        for peer, model in models.items():
            sides[peer] = Side(peer, model, threads)
            stack.callback(sides[peer].end)
        for number in range(rounds + 1):
            for peer in sorted(sides, key=lambda peer: peer.name, reverse=number % 2 == 0):
                for name, question in asked(shape, peer).items():
                    time.sleep(REST_S)
                    times = sides[peer].ask({**question, "round": number})
                    if number:  # the first round warms up
                        found.setdefault(f"{peer.name}, {name}", []).append(times)
    return {
        row: {stage: spread([times[stage] for times in several]) for stage in several[0]}
        for row, several in found.items()
    }


def asked(shape: str, peer: Peer) -> dict[str, dict[str, Any]]:
    """The questions of a round by name."""
    if shape not in random_checkpoints.SIDES:
        return {f"{length} tokens": {"prompt": length, "tokens": TOKENS} for length in PROMPTS}
    image = {"image": random_checkpoints.SIDES[shape]}
    questions: dict[str, dict[str, Any]] = {"all visual tokens": image}
    if shape in peer.prunes:
        questions[f"{KEEP:.0%} of the visual tokens"] = {**image, "keep": KEEP}
    return questions


if __name__ == "__main__":
    main()
