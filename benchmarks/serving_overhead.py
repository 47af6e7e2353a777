"""What does the server add to a request and to a token, beside the bare library?

    python benchmarks/serving_overhead.py reference.bundle

The same question in turn: asked of a model in this process, and of a server's, which waits
meanwhile; threads of ONNX Runtime stop spinning behind a call in both. Answers come in events:
those of one token say what a request costs, with and without a picture, long ones what each further
token does.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from measuring import record, spread
from PIL import Image
from serving import CHAT, Client, question, server

import tightrope as tr

WARMING = 5
PICTURE_SIDE = 336
POINT = {"kv_budget": 64}
"""Nothing but an end token ends an answer before its last token, and those are biased away."""
SAMPLED: dict[str, Any] = {"temperature": 1.0, "seed": 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=65)
    given = parser.parse_args()
    model = tr.load(given.bundle, live=False)
    ends = model._loaded.language.ends
    image = picture()

    def bare(tokens: int, images: list[bytes]) -> Callable[[], object]:
        def call() -> object:
            stream = model.stream(
                "?",
                images,
                max_tokens=tokens,
                logit_bias={end: -100.0 for end in ends},
                point=tr.OperatingPoint(**POINT),
                **SAMPLED,
            )
            return [piece.text for piece in stream]

        return call

    with server(str(given.bundle)) as port:
        client = Client(port)

        def served(tokens: int, images: list[Path | bytes]) -> Callable[[], object]:
            bias = {str(end): -100 for end in ends}
            asked = {"max_tokens": tokens, "logit_bias": bias, "stream": True}
            body = question("?", images, **asked, **POINT, **SAMPLED)

            def call() -> object:
                status, content = client.post(CHAT, body)
                assert status == 200, content
                return content

            return call

        rows = [
            [
                ms(bare(1, [])),
                ms(served(1, [])),
                ms(bare(1, [image])),
                ms(served(1, [image])),
                ms(bare(given.tokens, [])),
                ms(served(given.tokens, [])),
            ]
            for _ in range(given.repetitions + WARMING)
        ]
    record("serving_overhead", figures(np.array(rows[WARMING:]), given.tokens))


def picture() -> bytes:
    """A picture with some content, as a file."""
    pixels = np.random.default_rng(0).integers(0, 256, (PICTURE_SIDE // 16,) * 2 + (3,), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).resize((PICTURE_SIDE, PICTURE_SIDE)).save(stream, "PNG")
    return stream.getvalue()


def ms(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1e3


def figures(table: Any, tokens: int) -> dict[str, Any]:
    """Of the columns that `main` measures; what is added is the difference of each pair."""
    request = table[:, 1] - table[:, 0]
    added = {
        "a request": request,
        "a request with a picture": table[:, 3] - table[:, 2],
        "a token": (table[:, 5] - table[:, 4] - request) / (tokens - 1),
    }
    bare = {"one token": table[:, 0], "a picture": table[:, 2], "all": table[:, 4]}
    return {
        "unit": "ms",
        "tokens": tokens,
        **{
            name: {**spread(values.tolist()), "p95": float(np.percentile(values, 95))}
            for name, values in added.items()
        },
        "bare": {name: spread(values.tolist()) for name, values in bare.items()},
    }


if __name__ == "__main__":
    main()
