"""What does the server add to a request and to a token, beside the bare library?

    python benchmarks/serving_overhead.py reference.bundle

The same question in turn: asked of a model in this process, and of a server's, which waits
meanwhile. Whole answers say what a request costs, answers in events what each further token does.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from measuring import record, spread
from serving import CHAT, Client, server

import tightrope as tr


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=65)
    given = parser.parse_args()
    model = tr.load(given.bundle)
    point = {"kv_budget": 64}  # nothing ends an answer before its last token but an end token
    ask: dict[str, Any] = {"temperature": 1.0, "seed": 1}
    figures: dict[str, Any] = {"unit": "ms", "tokens": given.tokens}
    with server(str(given.bundle)) as port:
        client = Client(port)

        def bare(tokens: int) -> None:
            stream = model.stream(
                "?",
                max_tokens=tokens,
                logit_bias={end: -100.0 for end in model._loaded.language.ends},
                point=tr.OperatingPoint(**point),
                **ask,
            )
            for _ in stream:
                pass

        bias = {str(end): -100 for end in model._loaded.language.ends}

        def served(tokens: int) -> None:
            body = {"messages": [{"role": "user", "content": "?"}], "max_tokens": tokens}
            status, _ = client.post(
                CHAT,
                json.dumps({**body, **ask, **point, "stream": True, "logit_bias": bias}).encode(),
            )
            assert status == 200

        def ms(call: Any, tokens: int) -> float:
            started = time.perf_counter()
            call(tokens)
            return (time.perf_counter() - started) * 1e3

        rows = []
        for number in range(given.repetitions + 5):
            row = [ms(call, tokens) for tokens in (1, given.tokens) for call in (bare, served)]
            if number >= 5:
                rows.append(row)
    table = np.array(rows)
    request = table[:, 1] - table[:, 0]
    token = (table[:, 3] - table[:, 2] - request) / (given.tokens - 1)
    for name, added in (("a request", request), ("a token", token)):
        p95 = float(np.percentile(added, 95))
        figures[name] = {**spread(added.tolist()), "p95": p95}
    figures["bare"] = {
        "one token": spread(table[:, 0].tolist()),
        "all": spread(table[:, 2].tolist()),
    }
    record("serving_overhead", figures)


if __name__ == "__main__":
    main()
