"""What own quantisation costs the reference model, whose weights were never quantised.

tightrope task make --kind mix -o mix --images 640
python benchmarks/quantisation.py mix
python benchmarks/quantisation.py mix --accuracy "32 sym 4" --accuracy "64 asym 4"

Of every block size, symmetry, head and with scaling by activations or without: distance of the
answers' logits from the float model, in float32 on prompts that were not scaled for. Of rows that
are named instead, the accuracy of the exported bundle on the other questions, against float16.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from conditions import Condition, difference, in_turn
from measuring import record

import tightrope as tr
from tightrope.arrays import Floats
from tightrope.cli.export import calibration_of
from tightrope.export.calibration import Sample, prompts
from tightrope.export.checkpoint import open_checkpoint
from tightrope.export.late import LateModel, Place, Read
from tightrope.export.own_codes import own_codes
from tightrope.export.quantising import Asked, logits, matrices, rounded
from tightrope.export.recipe import plan
from tightrope.export.rounding import Rounding
from tightrope.profiles.task.task import Item, read_task
from tightrope.progress import silent

REFERENCE = Path(__file__).parents[1] / "models" / "reference"
BLOCKS, HEADS, BUDGET = (32, 64, 128), (4, 8), 4.75
_TAIL = 6
"""Last tokens of a prompt: the end of a question and its answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One way to quantise."""

    block_size: int
    asymmetric: bool
    head_bits: int
    scaled: bool
    bits: float | None = None

    @property
    def name(self) -> str:
        words = [str(self.block_size), "asym" if self.asymmetric else "sym", str(self.head_bits)]
        words += ["scaled"] * self.scaled
        return " ".join(words if self.bits is None else [*words, f"up to {self.bits:g}"])

    def config(self, **others: Any) -> tr.ExportConfig:
        return tr.ExportConfig(
            precision="int4",
            block_size=self.block_size,
            symmetric=not self.asymmetric,
            head_bits=self.head_bits,
            bits=self.bits,
            **others,
        )


def rows() -> list[Row]:
    plain = [
        Row(block_size=block, asymmetric=asymmetric, head_bits=head, scaled=scaled)
        for block, asymmetric, head, scaled in itertools.product(
            BLOCKS, (False, True), HEADS, (False, True)
        )
    ]
    return plain + [
        replace(row, bits=BUDGET) for row in plain if row.head_bits == 4 and row.block_size < 128
    ]


def opened(row: Row | None, **others: Any) -> tuple[Any, LateModel]:
    config = tr.ExportConfig(precision="fp16", **others) if row is None else row.config(**others)
    checkpoint = open_checkpoint(REFERENCE)
    return plan(checkpoint, config), checkpoint.late_model()


def errors(row: Row, samples: Sequence[Sample], asked: Asked, expected: list[Floats]) -> Any:
    recipe, late = opened(row)
    late, rounding, said = own_codes(recipe, late, samples if row.scaled else None, silent)
    measured = tails(logits(late, asked, once(rounded(late, rounding))))
    found = distances(np.concatenate(expected), np.concatenate(measured))
    return {**found, **sizes(late, rounding), "notes": said}


def once(read: Read) -> Read:
    """Reads each parameter once and keeps it: the reference model is small."""
    found: dict[str, Any] = {}

    def kept(place: Place) -> Any:
        if place.name not in found:
            found[place.name] = read(place)
        return found[place.name]

    return kept


def tails(found: Sequence[Floats]) -> list[Floats]:
    return [rows[-_TAIL:] for rows in found]


def distances(expected: Floats, measured: Floats) -> dict[str, float]:
    """Kullback-Leibler divergence in nats, share of equal best tokens, relative logit error."""
    wanted, found = log_softmax(expected), log_softmax(measured)
    return {
        "kl": float((np.exp(wanted) * (wanted - found)).sum(-1).mean()),
        "same_top": float((wanted.argmax(-1) == found.argmax(-1)).mean()),
        "logit_error": float(np.sqrt(((measured - expected) ** 2).mean() / (expected**2).mean())),
    }


def log_softmax(values: Floats) -> Floats:
    moved = values.astype(np.float64) - values.max(-1, keepdims=True)
    result: Floats = moved - np.log(np.exp(moved).sum(-1, keepdims=True))
    return result


def sizes(late: LateModel, rounding: Rounding) -> dict[str, float]:
    """Of the language model's matrices: bytes of codes, scales and zeros on the host, and bits a
    weight there and on TensorRT, where a zero point is a shift and eight bits are float16.
    """
    host, there, weights = 0.0, 0.0, 0
    for place in matrices(late, rounding):
        read = rounding.coded(place.name, late.parameters[place.name])
        zeros, count = 0 if read.zero is None else read.zero.size, read.codes.size
        host += count * read.bits / 8 + read.scale.nbytes + zeros / 2
        there += 2 * count if read.bits == 8 else count / 2 + read.scale.nbytes + 2 * zeros
        weights += count
    return {"bytes": host, "bits": 8 * host / weights, "tensorrt_bits": 8 * there / weights}


def accuracy(
    items: Sequence[Item], chosen: Sequence[Row], samples: Sequence[Sample], processes: int
) -> dict[str, Any]:
    """Of float16 and of the rows, asked in turn; differences are paired."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = []
        for row in (None, *chosen):
            name = "fp16" if row is None else row.name
            bundle = Path(folder) / f"{name}.bundle"
            options: dict[str, Any] = {"slots": 3072, "selectors": ()}
            if row is None:
                tr.export(REFERENCE, bundle, tr.ExportConfig(precision="fp16", **options))
            else:
                given = samples if row.scaled else None
                tr.export(REFERENCE, bundle, row.config(**options), calibration=given)
            wanted.append(Condition(name=name, bundle=str(bundle), items=tuple(items)))
        told, right = {}, {}
        for condition, about, found in in_turn(wanted, processes):
            told[condition.name], right[condition.name] = about, found
    against = functools.partial(difference, items)
    return {
        "conditions": told,
        "against_fp16": {
            name: against(found, right["fp16"]) for name, found in right.items() if name != "fp16"
        },
    }


def table(
    names: Sequence[str], samples: Sequence[Sample], held: Sequence[Sample], sets: int
) -> dict[str, Any]:
    """Errors of rows, scaled for `samples`, on prompts of the others."""
    asked: list[Any] = []
    for seed in range(sets):
        asked += prompts(*opened(None, seed=seed), held)
    _, late = opened(None)
    expected, found = tails(logits(late, asked)), {}
    every = {row.name: row for row in rows()}
    for name in names or every:
        found[name] = errors(every[name], samples, asked, expected)
        print(name, json.dumps(found[name]), flush=True)
    return {"prompts": len(asked), "tokens": len(asked) * _TAIL, "rows": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", type=Path)
    parser.add_argument("--row", action="append", default=[], help="only these of the table")
    parser.add_argument("--sets", type=int, default=4, help="of 24 prompts, for the table")
    parser.add_argument("--accuracy", action="append", default=[], metavar="ROW")
    parser.add_argument("--questions", type=int, default=2000)
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    samples = calibration_of(given.task)
    third = len(samples) // 3  # what is scaled for is asked nowhere
    if given.accuracy:
        every = {row.name: row for row in rows()}
        chosen = [every[name] for name in given.accuracy]
        items = read_task(given.task).items[third:][: given.questions]
        figures = accuracy(items, chosen, samples[:third], given.processes)
        record("quantisation_accuracy", figures)
    else:
        figures = table(given.row, samples[:third], samples[third:], given.sets)
        record("quantisation", figures)


if __name__ == "__main__":
    main()
