"""What Python costs per generated token: the whole loop on the null backend, arithmetic left out.

    python benchmarks/python_share.py

Greedy, vocabulary 49,152, 30 layers, 3 KV heads of width 64, commit included: the loop of a
language model of 135 M parameters. The null backend's own time (it plays the graph) is measured
apart and taken off.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import tokenizers
from measuring import record, spread

from tightrope.budget import OperatingPoint
from tightrope.interface import Dims
from tightrope.runtime.backends.backend import Cancel
from tightrope.runtime.backends.null import NullBackend
from tightrope.runtime.detokenizer import StreamDecoder
from tightrope.runtime.generation import Decoding, Row, decode
from tightrope.runtime.sampling import Sampler
from tightrope.runtime.settings import Settings
from tightrope.runtime.tokenizer import Tokenizer

DIMS = Dims(
    num_hidden_layers=30,
    num_attention_heads=9,
    num_key_value_heads=3,
    head_dim=64,
    hidden_size=576,
    vocab_size=49152,
)


class Timed(NullBackend):
    """A null backend that knows how long it took itself."""

    spent = 0.0

    def decode(self, slots, call):  # type: ignore[no-untyped-def]
        started = time.perf_counter()
        result = super().decode(slots, call)
        self.spent += time.perf_counter() - started
        return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--repetitions", type=int, default=7)
    arguments = parser.parse_args()
    words = {f"w{i}": i for i in range(DIMS.vocab_size)}
    plain = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w0"))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tokenizer.json"
        plain.save(str(file))
        tokenizer = Tokenizer(file, {}, False)
    table = np.zeros((DIMS.vocab_size, DIMS.hidden_size), np.float16)
    settings = Settings(
        point=OperatingPoint(),
        budget=np.full(30, 2048),
        evicts=False,
        policy=np.array([1, 1, 0, 0, 32, 1, 4, 32], np.float32),
        sinks=4,
        recent=32,
        resolution=None,
        before=None,
        inside=None,
    )
    shares = []
    for _ in range(arguments.repetitions):
        backend = Timed(DIMS, lambda i: 1 + i % 1000)
        slots = backend.make_slots(1)
        rows = [Row(StreamDecoder(tokenizer, ()))]
        decoding = Decoding(
            sampler=Sampler(0.0, 1.0, 0), max_tokens=arguments.tokens, end_ids=frozenset()
        )
        logits = np.zeros((1, DIMS.vocab_size), np.float32)
        started = time.perf_counter()
        for _ in decode(
            backend,
            slots,
            logits,
            0,
            rows,
            decoding,
            settings,
            lambda ids: table[np.asarray(ids)].astype(np.float32),  # type: ignore[arg-type]
            Cancel(),
        ):
            pass
        whole = time.perf_counter() - started
        shares.append((whole - backend.spent) / arguments.tokens * 1e3)
    record("python_share", {"unit": "ms a token", "python's share": spread(shares)})


if __name__ == "__main__":
    main()
