"""Does a decode step pay for slots that are allowed but not occupied, and does it copy the cache?

    python benchmarks/steps.py BUNDLE...

Give bundles of one checkpoint that differ in --slots (say 256 and 4096). A step with 64 occupied
slots is timed on each. Then, over growing capacity C with the cache nearly full: the graph's run,
which reads the cache once and must grow with it; the commit of its rows, which must not; and for
scale a copy of the cache, which no step makes (the graph's inputs are the slots' own memory).
"""

from __future__ import annotations

import argparse

import numpy as np
from measuring import interleaved, record, spread

import tightrope as tr
from tightrope.runtime.backends.backend import Call, Cancel
from tightrope.runtime.conversation import Conversation, assemble
from tightrope.runtime.model import Model
from tightrope.runtime.settings import resolve
from tightrope.runtime.slots import Update


def filled(model: Model, tokens: int) -> Conversation:
    """A conversation that holds `tokens` random tokens."""
    manifest = model.bundle.manifest
    rng = np.random.default_rng(0)
    conversation = Conversation(model.backend, manifest)
    ids = rng.integers(0, manifest.dims.vocab_size, tokens).tolist()
    stretch = assemble(ids, [], None, model._embeddings, 0)
    conversation.read(stretch, 0, resolve(None, manifest), Cancel())
    return conversation


def one_step(model: Model, conversation: Conversation) -> Update:
    """The decode call for the next token, not committed: the slots stay as they are."""
    settings = resolve(None, model.bundle.manifest)
    place = np.array([[conversation.next_ordinal]])
    embeds = model._embeddings([[1]])
    call = Call(embeds, place.astype(np.int32), place, settings.budget, settings.policy)
    return model.backend.decode(conversation.slots, call)[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundles", nargs="+")
    parser.add_argument("--repetitions", type=int, default=60)
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    models = {path: tr.load(path, threads=arguments.threads) for path in arguments.bundles}
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
                "commit": lambda slots=slots, update=update: slots.commit(update, slots.capacity),
                "copy of the cache": lambda slots=slots: (slots._keys.copy(), slots._values.copy()),
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
