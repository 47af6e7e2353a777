"""What visual-token pruning and a KV budget buy on one image and question.

python benchmarks/pruning.py BUNDLE IMAGE "question"
"""

from __future__ import annotations

import argparse
from typing import Any

from measuring import interleaved, record, spread

import tightrope as tr

POINTS = {
    "everything": None,
    "flashvlm 50%": tr.OperatingPoint(selector="flashvlm", keep="50%"),
    "flashvlm 25%": tr.OperatingPoint(selector="flashvlm", keep="25%"),
    "flashvlm 12.5%": tr.OperatingPoint(selector="flashvlm", keep="12.5%"),
    "visionzip 25%": tr.OperatingPoint(selector="visionzip", keep="25%"),
    "divprune 25%": tr.OperatingPoint(selector="divprune", keep="25%"),
    "fastv 25%": tr.OperatingPoint(selector="fastv", keep="25%"),
    "kv_budget 256": tr.OperatingPoint(kv_budget=256),
    "kv_budget 64": tr.OperatingPoint(kv_budget=64),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("image")
    parser.add_argument("question")
    parser.add_argument("--repetitions", type=int, default=15)
    arguments = parser.parse_args()
    model = tr.load(arguments.bundle, live=False)
    answers: dict[str, list[Any]] = {name: [] for name in POINTS}

    def ask(name: str) -> None:
        answers[name].append(
            model.generate(
                arguments.question,
                images=[arguments.image],
                point=POINTS[name],
                max_tokens=8,
                ignore_eos=True,
            )
        )

    interleaved({name: lambda name=name: ask(name) for name in POINTS}, arguments.repetitions)
    rows = {}
    for name, several in answers.items():
        several = several[1:]
        last = several[-1]
        rows[name] = {
            "prefill_ms": spread([answer.timings.prefill_ms for answer in several]),
            "select_ms": spread([answer.timings.select_ms for answer in several]),
            "tpot_ms": spread([answer.timings.decode_ms / 7 for answer in several]),
            "visual_tokens_kept": last.usage.visual_tokens_kept,
            "occupied_slots": last.usage.occupied_slots,
            "slot_bytes": last.usage.slot_bytes,
        }
    full = rows["everything"]["prefill_ms"]["median"]
    for row in rows.values():
        row["prefill_speedup"] = full / row["prefill_ms"]["median"]
    record("pruning", {"rows": rows})


if __name__ == "__main__":
    main()
