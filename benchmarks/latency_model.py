"""How well does a latency model that was fitted in two minutes predict requests it never saw?

python benchmarks/latency_model.py BUNDLE

The model is fitted as `tightrope profile --latency-only` does it. Then requests are drawn: pictures
of other sizes than the fit's, lengths, points and answers at random, each asked twice with all
others in between. Errors are told beside the difference between the two: no model gets below it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from statistics import fmean
from typing import Any

import numpy as np
from measuring import record, spread

import tightrope as tr
from tightrope.latency import Estimate, Prediction
from tightrope.profiles.latency.config import LatencyConfig
from tightrope.profiles.latency.pictures import Source, draw
from tightrope.profiles.latency.profile import profile_latency
from tightrope.profiles.measure import Request, measure
from tightrope.runtime.answer import Answer

SIZES = ((400, 300), (800, 600), (1024, 768), (1600, 900), (1920, 1200))
FORMATS = ("PNG", "JPEG", "WEBP", "array")
KEEPS = ("15%", "33%", "45%", "70%")
BUDGETS = (96, 160, 300)
WORDS = ("where", "is", "the", "red", "star", "and", "what", "colour", "has", "it")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("--requests", type=int, default=520)
    parser.add_argument("--minutes", type=float, default=LatencyConfig().minutes)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    model = tr.load(arguments.bundle, live=False)
    fitted = profile_latency(model, LatencyConfig(minutes=arguments.minutes))
    rng = np.random.default_rng(arguments.seed)
    drawn = [drawn_request(model, rng) for _ in range(arguments.requests // 2)]
    predictions = [fitted.model.predict(work_of(model, request)) for request in drawn]
    first, again = (ask(model, drawn) for _ in range(2))
    record(
        "latency_model",
        {
            "fit": {
                "points": fitted.points,
                "requests": fitted.requests,
                "seconds": round(fitted.seconds, 1),
                "held_out": asdict(fitted.held_out),
            },
            "requests": len(first) + len(again),
            "ttft": compared(
                [prediction.ttft for prediction in predictions],
                [[answer.timings.ttft_ms for answer in answers] for answers in (first, again)],
            ),
            "tpot": compared(
                [prediction.tpot for prediction in predictions],
                [[tpot_ms(answer) for answer in answers] for answers in (first, again)],
            ),
            "total": compared(
                [prediction.total for prediction in predictions],
                [[answer.timings.total_ms for answer in answers] for answers in (first, again)],
            ),
            "stages_bias_percent": stage_bias(predictions, first),
        },
    )


def drawn_request(model: tr.Model, rng: np.random.Generator) -> Request:
    """A question about one picture, or a text in one case of five."""
    manifest = model.bundle.manifest
    words = rng.choice(WORDS, int(rng.integers(4, 40))).tolist()
    images, options = [], {}
    if manifest.vision is not None and rng.random() < 0.8:
        width, height = SIZES[rng.integers(len(SIZES))]
        source = Source(str(rng.choice(FORMATS)), width, height, rough=bool(rng.random() < 0.5))
        images = [draw(source, int(rng.integers(4)))]
        options["resolution"] = int(rng.choice(manifest.vision.resolutions))
        if rng.random() < 0.7:
            options["selector"] = str(rng.choice([*manifest.selectors, "uniform"]))
            options["keep"] = str(rng.choice(KEEPS))
    else:
        words = rng.choice(WORDS, int(rng.integers(4, manifest.prefill_chunk))).tolist()
    if rng.random() < 0.3:
        options["kv_budget"] = int(rng.choice(BUDGETS))
    return Request(
        name="drawn",
        prompt=" ".join(words),
        images=images,
        max_tokens=int(rng.integers(2, 48)),
        point=tr.OperatingPoint(**options),
        ignore_eos=True,
    )


def work_of(model: tr.Model, request: Request) -> Any:
    return model.count(
        request.prompt, request.images, max_tokens=request.max_tokens, point=request.point
    ).work


def ask(model: tr.Model, requests: list[Request]) -> list[Answer]:
    """All of them in turn, each image as if it were new."""

    def forgetting() -> Iterator[Request]:
        for request in requests:
            model.forget_images()
            yield request

    return measure(model, forgetting(), total=len(requests))


def tpot_ms(answer: Answer) -> float:
    return answer.timings.decode_ms / (answer.usage.completion_tokens - 1)


def compared(estimates: list[Estimate], measured: list[list[float]]) -> dict[str, Any]:
    """Errors of the predictions, beside how far the same requests lie apart."""
    first, again = measured
    both = [pair for times in measured for pair in zip(estimates, times, strict=True)]
    errors = [100 * abs(estimate.percentile_ms(50) / time - 1) for estimate, time in both]
    retest = [200 * abs(a - b) / (a + b) for a, b in zip(first, again, strict=True)]
    return {
        "mape_percent": fmean(errors),
        "test_retest_percent": fmean(retest),
        "error_percent": spread(errors),
        "above_p95_percent": 100
        * fmean(time > estimate.percentile_ms(95) for estimate, time in both),
        "above_p99_percent": 100
        * fmean(time > estimate.percentile_ms(99) for estimate, time in both),
    }


def stage_bias(predictions: list[Prediction], answers: list[Answer]) -> dict[str, float]:
    """Predicted minus measured milliseconds of each stage, relative to all of the first tokens."""
    whole = sum(answer.timings.ttft_ms for answer in answers)
    names = ("image_decode_ms", "preprocess_ms", "vision_ms", "select_ms", "prefill_ms")
    return {
        name: 100
        * sum(
            getattr(prediction.stages, name) - getattr(answer.timings, name)
            for prediction, answer in zip(predictions, answers, strict=True)
        )
        / whole
        for name in names
    }


if __name__ == "__main__":
    main()
