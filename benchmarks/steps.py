"""Does a decode step pay for slots that are allowed but not occupied, and does it copy the cache?

    python benchmarks/steps.py BUNDLE...

Give bundles of one checkpoint that differ in --slots (say 256 and 4096). A step with 64 occupied
slots is timed on each. Then, over growing capacity C with the cache nearly full: the graph's run,
which reads the cache once and must grow with it; the commit of its rows, which must not; and for
scale a copy of the cache, which no step makes (the graph's inputs are the slots' own memory).
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from measuring import interleaved, record, spread

from tightrope.bundle import Bundle
from tightrope.inputs.layout import assemble
from tightrope.interface.calls import Call, Update
from tightrope.runtime.backends import create_backend
from tightrope.runtime.cancel import Cancel
from tightrope.runtime.conversation import Conversation
from tightrope.runtime.loaded import Loaded
from tightrope.runtime.settings import Settings, resolve


def filled(loaded: Loaded, tokens: int) -> Conversation:
    """A conversation that holds `tokens` random tokens."""
    rng = np.random.default_rng(0)
    conversation = Conversation(loaded)
    ids = rng.integers(0, loaded.manifest.dims.vocab_size, tokens).tolist()
    stream = assemble(ids, None, (), loaded.embeddings)
    for _ in conversation.read(stream, 0, resolve(None, loaded.manifest), Cancel()):
        pass
    return conversation


def one_step(
    loaded: Loaded, conversation: Conversation, settings: Settings | None = None
) -> Update:
    """The decode call for the next token, not committed: the slots stay as they are."""
    settings = settings or resolve(None, loaded.manifest)
    place = np.array([[conversation.next_ordinal]])
    embeds = loaded.embeddings([[1]])
    call = Call(embeds, place.astype(np.int32), place, settings.kv_budget, settings.policy)
    return loaded.backend.decode(conversation.slots, call)[1]


def load(path: str, threads: int | None) -> Loaded:
    bundle = Bundle.open(path)
    return Loaded(bundle, create_backend("onnxruntime", bundle, threads), time.perf_counter)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundles", nargs="+")
    parser.add_argument("--repetitions", type=int, default=60)
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    models = {path: load(path, arguments.threads) for path in arguments.bundles}
    few = {path: filled(model, 63) for path, model in models.items()}
    tasks = {
        f"{model.bundle.manifest.slots} slots allowed": (
            lambda model=model, path=path: one_step(model, few[path])
        )
        for path, model in models.items()
    }
    allowed = interleaved(tasks, arguments.repetitions)
    largest = max(models.values(), key=lambda model: model.bundle.manifest.slots)
    growing = {}
    for capacity in (256, 512, 1024, 2048):
        if capacity > largest.bundle.manifest.slots:
            continue
        conversation = filled(largest, capacity - 2)
        slots = conversation.slots
        update = one_step(largest, conversation)
        times = interleaved(
            {
                "run": lambda conversation=conversation: one_step(largest, conversation),
                "commit": lambda slots=slots, update=update: slots.commit(update),
                "copy of the cache": lambda slots=slots: slots.fork(1),
            },
            arguments.repetitions,
        )
        growing[f"C = {capacity}"] = {name: spread(value) for name, value in times.items()}
        growing[f"C = {capacity}"]["megabytes"] = slots.nbytes / 1e6
    record(
        "steps",
        {
            "unit": "ms",
            "64 occupied slots": {name: spread(value) for name, value in allowed.items()},
            "nearly full": growing,
        },
    )


if __name__ == "__main__":
    main()
