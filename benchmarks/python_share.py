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

from tightrope.interface.tensors import Dims
from tightrope.plugins.slot_attention.policies import unbudgeted
from tightrope.point import OperatingPoint
from tightrope.runtime.backends.null import NullBackend
from tightrope.runtime.cancel import Cancel
from tightrope.runtime.controls import cancelled, end_tokens, most_tokens, slots_full, stop_strings
from tightrope.runtime.detokenizer import StreamDecoder
from tightrope.runtime.generation import Generation, Row, Start
from tightrope.runtime.sampling import Sampler
from tightrope.runtime.settings import Settings
from tightrope.runtime.slots import Slots
from tightrope.runtime.storage import NumpyStorage
from tightrope.runtime.thought import Thought
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
        kv_budget=np.full((DIMS.num_hidden_layers, DIMS.num_key_value_heads), 2048),
        gives_up=np.zeros(DIMS.num_hidden_layers, bool),
        policy=unbudgeted(DIMS.num_hidden_layers),
        resolution=None,
    )
    controls = [
        end_tokens({}),
        stop_strings(),
        most_tokens(arguments.tokens),
        cancelled(Cancel()),
        slots_full(),
    ]

    def storage(rows: int, capacity):  # type: ignore[no-untyped-def]
        return NumpyStorage(DIMS, rows, capacity)

    shares = []
    for _ in range(arguments.repetitions):
        backend = Timed(DIMS, lambda i: 1 + i % 1000, storage)
        generation = Generation(
            backend,
            Slots(DIMS, 1, backend.make_storage),
            Start(logits=np.zeros((1, DIMS.vocab_size), np.float32), ordinal=0),
            [Row(StreamDecoder(tokenizer), Thought(None, opened=False))],
            Sampler(0.0, 1.0, 0),
            lambda ids: table[np.asarray(ids)].astype(np.float32),
            controls,
            settings,
        )
        started = time.perf_counter()
        for _ in generation.run():
            pass
        whole = time.perf_counter() - started
        shares.append((whole - backend.spent) / arguments.tokens * 1e3)
    record("python_share", {"unit": "ms a token", "python's share": spread(shares)})


if __name__ == "__main__":
    main()
