"""Requests that schemathesis draws from the server's OpenAPI document: is any answer a 500?

    python benchmarks/serving_schema.py reference.bundle

Of each operation some fit the document and some do not. What may not happen is a status of 500 or
more, one that the document does not name, a trace, or a server that is gone; it exits with 1 then.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from measuring import record
from serving import Client, server

MODES = {
    "fitting": schemathesis.GenerationMode.POSITIVE,
    "not fitting": schemathesis.GenerationMode.NEGATIVE,
}
LIMITS = ("--max-tokens", "4", "--max-answers", "2")
"""What is drawn may ask for long answers, which say nothing here."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--examples", type=int, default=200, help="of each operation in each mode")
    given_ = parser.parse_args()
    outcomes: dict[str, dict[str, int]] = {}
    failures: list[str] = []
    with server(str(given_.bundle), *LIMITS) as port:
        schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")
        for result in schema.get_all_operations():
            operation = result.ok()
            for name, mode in MODES.items():
                label = f"{operation.method.upper()} {operation.path}, {name}"
                counts, wrong = tried(operation, mode, given_.examples)
                if counts:
                    outcomes[label] = dict(counts)
                failures += [f"{label}: {sentence}" for sentence in wrong]
                print(label, dict(counts), flush=True)
        if Client(port).get("/readyz")[0] != 200:
            failures.append("the server does not answer any more")
    record(
        "serving_schema",
        {
            "schemathesis": metadata.version("schemathesis"),
            "requests": sum(sum(counts.values()) for counts in outcomes.values()),
            "outcomes": outcomes,
            "failures": failures[:20],
        },
    )
    sys.exit(bool(failures))


def tried(operation: Any, mode: Any, examples: int) -> tuple[Counter[str], list[str]]:
    """Statuses of what was drawn, and what is wrong with a reply; nothing where nothing can be."""
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    named = {str(status) for status in operation.definition.raw["responses"]}

    @settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        response = case.call(timeout=60)
        status = str(response.status_code)
        counts[status] += 1
        if status not in named or status == "500" or "Traceback" in response.text:
            wrong.append(f"{status}: {response.text[:200]}")

    with contextlib.suppress(Unsatisfiable):  # without a body nothing can be unlike the document
        ask()
    return counts, wrong


if __name__ == "__main__":
    main()
