"""The tables of the README that say how Tightrope stands beside its peers, from what is recorded.

python benchmarks/peers_table.py

Rewrites what stands between the marks of the README; `peers.py` records.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from measuring import RESULTS

README = Path(__file__).resolve().parent.parent / "README.md"
BEGIN, END = "<!-- peers.py: begin -->\n", "<!-- peers.py: end -->\n"
TITLES = {
    "text": "text of 0.5B, random weights",
    "smollm2": "SmolLM2-135M, its own Q4_1 file",
    "llava": "LLaVA's shape of 0.5B, 576 visual tokens",
    "qwen3_vl": "Qwen3-VL's shape of 0.5B, 576 visual tokens",
}
STAGES = ("first token", "step")
INTRODUCTION = """
On a CPU they were run beside it: the same random weights, prompts and pictures, in turn
([how](docs/speed.md#beside-peers)). Milliseconds: medians, and in brackets the middle half.
First token: from the prompt, or the picture, to it.
"""


def main() -> None:
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(before + BEGIN + tables() + END + after, encoding="utf-8")


def tables(results: Path = RESULTS) -> str:
    """One for each shape that was recorded, and what they are; nothing without a record."""
    files = {shape: results / f"peers_{shape}.json" for shape in TITLES}
    records = {
        shape: json.loads(file.read_text(encoding="utf-8"))
        for shape, file in files.items()
        if file.is_file()
    }
    found = "".join(f"\n{table(TITLES[shape], record)}" for shape, record in records.items())
    return (INTRODUCTION + found if found else "") + "\n"


def table(title: str, record: dict[str, Any]) -> str:
    """Medians in milliseconds by peer, and the range of the middle half in brackets."""
    rows = {tuple(row.split(", ", 1)): stages for row, stages in record["rows"].items()}
    columns = list(dict.fromkeys(_columns(rows)))
    lines = [[title, "bits a weight", *(", ".join(column) for column in columns)]]
    lines.append(["---"] * len(lines[0]))
    for peer, bits in record["bits a weight"].items():
        cells = [_cell(rows.get((peer, asked), {}).get(stage)) for asked, stage in columns]
        lines.append([f"{peer} {record['versions'][peer]}", f"{bits:.1f}", *cells])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _columns(rows: dict[Any, dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """By question its stages, those of all peers."""
    for (_, asked), stages in rows.items():
        yield from ((asked, stage) for stage in STAGES if stage in stages)


def _cell(spread: dict[str, float] | None) -> str:
    if spread is None:
        return ""
    return f"{_short(spread['median'])} ({_short(spread['low'])} to {_short(spread['high'])})"


def _short(ms: float) -> str:
    return f"{ms / 1e3:.2f} s" if ms >= 1e3 else f"{ms:.0f}" if ms >= 100 else f"{ms:.1f}"


if __name__ == "__main__":
    main()
