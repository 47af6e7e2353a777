"""Damaged and hostile inputs: nothing but an answer or an error of ours may come out.

    python benchmarks/damaged.py                           # 1,000, recorded
    python benchmarks/damaged.py --cases 60 --no-record    # a share, as the tests take it
    python benchmarks/damaged.py --only 417                # one again

Every input is drawn from the seed and its own number, and tried in a process of its own that may
take 20 s and 2 GB. Exits with 1 where one ends otherwise.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np
from measuring import record

ROOT = Path(__file__).parents[1]
SECONDS = 20
GIGABYTES = 2
SHARES = {"bundle": 40, "gguf": 17, "folder": 17, "image": 12, "messages": 6, "arguments": 8}
"""Of 100 inputs."""
PRELOADED = ["tightrope.runtime.model", "tightrope.export.export", "onnx", "tightrope.cli.run"]
FAULTS = ("foreign", "crash", "hang", "memory", "wordy", "undrawn")
WORDY = 1500
"""Characters: a sentence that shows more than the beginning of what it got is no sentence."""


@dataclass
class Outcome:
    """How one input ended."""

    number: int
    kind: str
    what: str = ""
    ended: str = "crash"
    said: str = ""
    megabytes: float = 0.0
    seconds: float = 0.0

    @property
    def fault(self) -> bool:
        return self.ended.split()[0] in FAULTS


def kind_of(number: int) -> str:
    """Kinds in turn, by their shares."""
    place = number * 37 % 100  # 37 and 100 share no divisor: every hundred has all shares
    for kind, share in SHARES.items():
        if place < share:
            return kind
        place -= share
    raise AssertionError("shares make up 100")


def attempt(outcome: Outcome, seed: int, bases: Path, folder: Path, pipe: Any) -> None:
    """Draw an input and try it; says through `pipe` what it is, and then how it ended."""
    import damaged_bundles as bundles
    import damaged_checkpoints as checkpoints

    from tightrope.errors import TightropeError

    # Writable memory that is the process's own; mapped files are no matter.
    resource.setrlimit(resource.RLIMIT_DATA, (GIGABYTES << 30, GIGABYTES << 30))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for stream in (1, 2):  # libraries of C++ write there
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    kinds = {
        "bundle": bundles.bundle, "image": bundles.image, "messages": bundles.messages,
        "arguments": bundles.arguments, "gguf": checkpoints.gguf, "folder": checkpoints.folder,
    }  # fmt: skip
    rng = np.random.default_rng([seed, outcome.number])
    try:
        outcome.what, run = kinds[outcome.kind](rng, bases, folder)
    except BaseException:
        outcome.ended, outcome.said = "undrawn", traceback.format_exc()
        pipe.send(outcome)
        return
    pipe.send(outcome)
    try:
        run()
        outcome.ended = "answered"
    except TightropeError as error:
        outcome.ended, outcome.said = type(error).__name__, str(error)
        if len(outcome.said) > WORDY:
            outcome.ended = f"wordy {outcome.ended}"
    except MemoryError as error:
        outcome.ended, outcome.said = "memory", str(error)
    except BaseException as error:
        outcome.ended, outcome.said = f"foreign {type(error).__name__}", str(error)
    outcome.said = outcome.said.replace(str(folder), "").replace(str(bases), "")[:300]
    outcome.megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    pipe.send(outcome)


def make_bases(folder: Path) -> None:
    """Whole inputs that the damaged ones are made of."""
    sys.path.insert(0, str(ROOT / "tests"))
    import checkpoints
    import gguf_files

    from tightrope.export.config import ExportConfig
    from tightrope.export.export import export

    for name, make in checkpoints.CHECKPOINTS.items():
        make(folder / name)
    config = ExportConfig(
        precision="fp32", slots=192, prefill_chunk=96, selectors=("divprune",), resolutions=(56,)
    )
    export(folder / "llava", folder / "llava.bundle", config)
    tokenizer = gguf_files.byte_level(("<|end|>", "<s>"), 300)
    metadata = gguf_files.metadata_of(tokenizer)
    metadata |= {"tokenizer.ggml.pre": "llama-bpe", "tokenizer.ggml.eos_token_id": 0}
    pieces = gguf_files.sentencepiece(gguf_files.pieces(300))
    pieces |= {"tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.bos_token_id": 1}
    for architecture, texts in (("qwen2", metadata), ("llama", pieces)):
        texts = {**texts, "general.alignment": 32}
        size = len(texts["tokenizer.ggml.tokens"])
        model = gguf_files.model_of(gguf_files.config_of(architecture, vocab_size=size))
        gguf_files.file_of(folder / f"{architecture}.gguf", model, texts, architecture)


def outcomes(numbers: list[int], seed: int, processes: int) -> Iterator[Outcome]:
    """Of each input, as they end."""
    # No terminal, no hub, no threads before a fork.
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "COLUMNS": "100"}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with tempfile.TemporaryDirectory() as temporary:
        bases = Path(temporary) / "bases"
        bases.mkdir()
        making = context.Process(target=make_bases, args=(bases,))
        making.start()
        making.join()
        if making.exitcode:
            raise SystemExit("the whole inputs could not be made")
        waiting, running = list(reversed(numbers)), {}
        while waiting or running:
            while waiting and len(running) < processes:
                number = waiting.pop()
                outcome = Outcome(number, kind_of(number))
                folder = Path(temporary) / str(number)
                folder.mkdir()
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(
                    target=attempt, args=(outcome, seed, bases, folder, theirs)
                )
                process.start()
                theirs.close()
                running[process.sentinel] = (process, ours, outcome, time.perf_counter())
            wait(list(running), timeout=1)
            for sentinel, (process, pipe, outcome, started) in list(running.items()):
                seconds = time.perf_counter() - started
                hangs = process.is_alive() and seconds > SECONDS
                if process.is_alive() and not hangs:
                    continue
                if hangs:
                    process.kill()
                process.join()
                outcome = _told(pipe, outcome)
                outcome.seconds = seconds
                if hangs:
                    outcome.ended = "hang"
                elif outcome.ended == "crash":
                    outcome.ended = f"crash {process.exitcode}"
                del running[sentinel]
                yield outcome


def _told(pipe: Any, outcome: Outcome) -> Outcome:
    """The last that a process said of its input."""
    try:
        while pipe.poll():
            outcome = pipe.recv()
    except EOFError:
        pass
    return outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, action="append", help="numbers of single inputs")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--no-record", action="store_true")
    arguments = parser.parse_args()
    numbers = arguments.only or list(range(arguments.cases))
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in SHARES}
    faults, seconds, megabytes = [], 0.0, 0.0
    for outcome in outcomes(numbers, arguments.seed, arguments.processes):
        counts[outcome.kind][outcome.ended] += 1
        seconds, megabytes = max(seconds, outcome.seconds), max(megabytes, outcome.megabytes)
        if outcome.fault:
            faults.append(outcome)
        if outcome.fault or arguments.only:
            print(f"{outcome.number} {outcome.what}: {outcome.ended}: {outcome.said}", flush=True)
    figures = {
        "seed": arguments.seed,
        "inputs": len(numbers),
        "limits": {"seconds": SECONDS, "gigabytes": GIGABYTES},
        "ended": {kind: dict(sorted(count.items())) for kind, count in counts.items()},
        "faults": [vars(fault) for fault in sorted(faults, key=lambda fault: fault.number)],
        "slowest_seconds": round(seconds, 1),
        "largest_megabytes": round(megabytes),
    }
    if arguments.no_record:
        print(figures)
    else:
        record("damaged", figures)
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
