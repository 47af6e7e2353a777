"""Are deadlines kept where nothing but the machine's noise stands between plan and answer?

python benchmarks/scripted_deadlines.py BUNDLE

Everything is real but the arithmetic and the clock. Each stage takes what a latency model says,
times noise: lognormal of 5 %, and one call in two thousand takes twice as long. Deadlines lie
between 1.2 x the p95 of the fastest point and the p50 of the slowest. In the second part the
machine has half its clock from one request to the next, and all of it again later.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
from measuring import record

import tightrope as tr
from tightrope.bundle import Bundle
from tightrope.latency import (
    PERCENTS,
    Hosting,
    LatencyModel,
    PrefillCall,
    Prefilling,
    Preprocessing,
    Selecting,
    SourceImage,
    Spread,
    Stages,
    Stepping,
    TowerTime,
    Workload,
)
from tightrope.latency_file import HeldOut, LatencyRecord
from tightrope.quality_file import MeasuredPoint, Outcome, Quality, QualityKey
from tightrope.runtime.backends.null import NullBackend
from tightrope.runtime.key import latency_key
from tightrope.runtime.planner import Planner

SIGMA, OUTLIER, OUTLIER_SHARE = 0.05, 2.0, 1 / 2000
MAX_TOKENS = 64
FITTED_TO = 400
"""Requests by which the latency file knows the spread."""
RUNS = 200
"""To measure the fastest and the slowest point by."""
QUESTIONS = 300
KEEPS = (None, "50%", "25%", "12.5%")
BEFORE, AFTER = 160, 20
"""Requests before and after a step of the machine's speed."""
LEARNT = 3
"""Requests after a step that may be missed while it is seen."""
PAUSE_S = 0.1
"""Between two requests."""
HALF = 2.0
"""What everything takes at half the clock, as a multiple."""
NOTHING: dict[str, Any] = {"text_tokens": 0, "prefill": (), "context": 0.0, "most_context": 0.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", default="scripted_deadlines", help="of the record")
    given = parser.parse_args()
    bundle = Bundle.open(given.bundle)
    figures = {
        "noise": {"sigma": SIGMA, "outlier": OUTLIER, "outlier_share": OUTLIER_SHARE},
        "drawn": Asker(bundle, given.seed).drawn(given.requests),
    }
    asker = Asker(bundle, given.seed + 1)
    figures["after a step"] = asker.after_steps(given.steps)
    record(given.name, figures)


class Machine(NullBackend):
    """Takes what the latency model says, times noise and the machine's present speed."""

    def __init__(self, bundle: Bundle, model: LatencyModel, rng: np.random.Generator) -> None:
        super().__init__(bundle.manifest.dims, self._next)
        self._model, self._rng, self._manifest = model, rng, bundle.manifest
        self._end = next(iter(bundle.read_json("generation.json")["eos_token_ids"]))
        self.now, self.speed, self.length = 0.0, 1.0, 1
        self._said = 0

    def clock(self) -> float:
        return self.now

    def _next(self, call: int) -> int:
        """Some word, then the end."""
        self._said += 1
        return self._end if self._said >= self.length else 20

    def _take(self, ms: float) -> None:
        noise = float(np.exp(self._rng.normal(0, SIGMA)))
        noise *= OUTLIER if self._rng.random() < OUTLIER_SHARE else 1.0
        self.now += ms * noise * self.speed / 1e3

    def _stages(self, **work: Any) -> Stages:
        return self._model.stages(Workload(**(NOTHING | work)))

    def vision(self, inputs: Any, cancel: Any) -> Any:
        pixels = next(array for array in inputs.values() if array.ndim == 4)
        images = (SourceImage(format="array", width=0, height=0),) * len(pixels)
        self._take(self._stages(images=images, resolution=pixels.shape[-1]).vision_ms)
        tokens = super().vision(inputs, cancel)
        side = pixels.shape[-1] // self._manifest.vision.sizes["patch_size"]
        embeds = np.zeros((len(pixels), side**2, tokens.embeds.shape[2]), np.float32)
        return replace(tokens, embeds=embeds)

    def select(self, method: str, tokens: Any, text_embeds: Any, keep: int) -> Any:
        images = (SourceImage(format="array", width=0, height=0),) * len(tokens.embeds)
        available = tokens.embeds.shape[1]
        work = {"visual_tokens": available, "visual_tokens_kept": keep, "selector": method}
        self._take(self._stages(images=images, **work).select_ms)
        return super().select(method, tokens, text_embeds, keep)

    def prefill(self, slots: Any, call: Any, cancel: Any) -> Any:
        calls = (PrefillCall(float(call.tokens_per_layer().mean()), float(slots.occupied.mean())),)
        stages = self._stages(prefill=calls)
        self._take(stages.prefill_ms + stages.host_ms)
        self._said = 0
        return super().prefill(slots, call, cancel)

    def decode(self, slots: Any, call: Any) -> Any:
        context = float(slots.occupied.mean())
        work = {"context": context, "most_context": 1e9, "completion_tokens": 2}
        self._take(self._stages(**work).decode_ms)
        return super().decode(slots, call)


class Asker:
    """A model on a scripted machine, and questions with deadlines."""

    def __init__(self, bundle: Bundle, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        model = latency_model(bundle)
        self._machine = Machine(bundle, model, self._rng)
        self._model = tr.Model(bundle, self._machine, self._machine.clock)
        self._picture = np.zeros((64, 64, 3), np.uint8)
        self._points = points_of(bundle)
        loaded = self._model._loaded
        file = LatencyRecord(
            key=latency_key(bundle, self._machine),
            date="",
            points=len(self._points),
            requests=FITTED_TO,
            seconds=0.0,
            packages={},
            held_out=HeldOut(
                ttft_mape_percent=0.0,
                tpot_mape_percent=0.0,
                ttft_above_p95_percent=5.0,
                tpot_above_p95_percent=5.0,
            ),
            model=self._with_spread(model),
        )
        self._planner = Planner(loaded, file, quality(self._points, self._rng))
        self._planner.warm = True
        loaded.planners[None] = self._planner

    def drawn(self, count: int) -> dict[str, Any]:
        low, high = self._range()
        if not low < high:
            raise SystemExit(f"no deadline lies between {low:.0f} and {high:.0f} ms")
        verdicts = [self._ask(float(self._rng.uniform(low, high))) for _ in range(count)]
        return {"deadlines_ms": [round(low, 1), round(high, 1)], **told(verdicts)}

    def after_steps(self, repetitions: int) -> dict[str, Any]:
        """The same deadline before and after a step down and the step back."""
        low, high = self._range()
        directions: dict[str, list[list[Verdict]]] = {"to half the clock": [], "back": []}
        usual: list[Any] = []
        for _ in range(repetitions):
            deadline = float(self._rng.uniform(HALF * low, high))
            self._machine.speed = 1.0
            usual.append([self._ask(deadline) for _ in range(BEFORE)][-1]["point"])
            for name, speed in (("to half the clock", HALF), ("back", 1.0)):
                self._machine.speed = speed
                directions[name].append([self._ask(deadline) for _ in range(AFTER)])
        return {
            "repetitions": repetitions,
            "deadlines_ms": [round(HALF * low, 1), round(high, 1)],
            **{name: stepped(rows) for name, rows in directions.items()},
            "same_point_as_before_percent": round(
                100
                * float(
                    np.mean(
                        [
                            row[-1]["point"] == point
                            for row, point in zip(directions["back"], usual, strict=True)
                        ]
                    )
                ),
                1,
            ),
        }

    def _range(self) -> tuple[float, float]:
        """1.2 x the p95 of the fastest point and the p50 of the slowest, in milliseconds."""
        times = [median(self._times(point, 3)) for point in self._points]
        fastest, slowest = (self._points[int(np.argsort(times)[place])] for place in (0, -1))
        first, last = self._times(fastest, RUNS), self._times(slowest, RUNS)
        return 1.2 * float(np.percentile(first, 95)), median(last)

    def _times(self, point: tr.OperatingPoint, runs: int) -> list[float]:
        return [self._answer(point=point).timings.total_ms for _ in range(runs)]

    def _answer(self, **options: Any) -> tr.Answer:
        self._model.forget_images()
        self._machine.length = int(drawn_length(self._rng))
        return self._model.generate(
            "what is it ?", images=[self._picture], max_tokens=MAX_TOKENS, **options
        )

    def _ask(self, deadline_ms: float) -> Verdict:
        self._machine.now += PAUSE_S
        started = self._machine.now
        try:
            answer = self._answer(budget=tr.Budget(deadline_ms=deadline_ms))
        except tr.BudgetUnreachable:
            return {"outcome": "refused", "over": 0.0, "point": None}
        took = (self._machine.now - started) * 1e3
        outcome = "late" if took > deadline_ms else "held" if answer.deadline_met else "cut"
        assert answer.plan is not None
        over = max(0.0, took / deadline_ms - 1)
        return {"outcome": outcome, "over": over, "point": answer.plan.point}

    def _with_spread(self, model: LatencyModel) -> LatencyModel:
        """The model as a fit to FITTED_TO requests on this machine would know its noise."""
        ratios: dict[str, list[float]] = {"ttft": [], "tpot": [], "total": []}
        for number in range(FITTED_TO):
            point = self._points[number % len(self._points)]
            answer = self._answer(point=point)
            tokens = answer.usage.completion_tokens
            work = self._model.count(
                "what is it ?", [self._picture], max_tokens=tokens, point=point
            ).work
            fitted = model.stages(work)
            timings = answer.timings
            ratios["ttft"].append(timings.ttft_ms / fitted.ttft_ms)
            ratios["total"].append(timings.total_ms / (fitted.ttft_ms + fitted.decode_ms))
            if tokens > 1:
                ratios["tpot"].append(timings.decode_ms / fitted.decode_ms)
        return replace(model, **{name: spread_of(found) for name, found in ratios.items()})


Verdict = dict[str, Any]


def spread_of(ratios: Sequence[float]) -> Spread:
    values = tuple(float(value) for value in np.percentile(ratios, PERCENTS))
    return Spread(mean=float(np.mean(ratios)), ratios=values)


def latency_model(bundle: Bundle) -> LatencyModel:
    """About what the reference model takes on two cores; images cost nothing before the tower."""
    exact = Spread(mean=1.0, ratios=(1.0,) * len(PERCENTS))
    vision = bundle.manifest.vision
    assert vision is not None, "the bundle sees nothing"
    return LatencyModel(
        decoding={},
        preprocessing=Preprocessing(image_ms=0.0, megapixel_ms=0.0, result_megapixel_ms=0.0),
        tower=tuple(
            TowerTime(resolution=side, image_ms=40.0 * (side / 168) ** 2)
            for side in sorted(vision.resolutions)
        ),
        selecting={
            name: Selecting(call_ms=1.0, square_ms=2e-5, pair_ms=0.0)
            for name in bundle.manifest.selectors
        },
        prefilling=Prefilling(
            knots=(0.0,),
            token_ms=(0.35,),
            call_ms=4.0,
            pair_ms=0.0,
            behind_tower_ms=0.0,
            eviction_ms=0.0,
            given_up_ms=0.0,
            schedules={},
            behind_selector_ms={},
        ),
        stepping=Stepping(start_ms=0.0, token_ms=4.0, slot_ms=0.002, eviction_ms=0.0),
        hosting=Hosting(request_ms=1.0, token_ms=0.0),
        ttft=exact,
        tpot=exact,
        total=exact,
    )


def points_of(bundle: Bundle) -> list[tr.OperatingPoint]:
    vision = bundle.manifest.vision
    assert vision is not None, "the bundle sees nothing"
    selector = next(iter(bundle.manifest.selectors))
    return [
        tr.OperatingPoint(resolution=side, selector=None if keep is None else selector, keep=keep)
        for side in vision.resolutions
        for keep in KEEPS
    ]


def drawn_length(rng: np.random.Generator, size: int | None = None) -> Any:
    """Tokens of short answers, the end included."""
    return 1 + np.minimum(rng.geometric(0.6, size), 6)


def quality(points: Sequence[tr.OperatingPoint], rng: np.random.Generator) -> Quality:
    """More pixels and more tokens are better: each question has a point from which it is right."""
    need = rng.uniform(0, 1.2, QUESTIONS)

    def worth(point: tr.OperatingPoint) -> float:
        share = 1.0 if point.keep is None else float(str(point.keep)[:-1]) / 100
        return 0.4 + 0.6 * ((point.resolution or 0) / 336) * share**0.3

    def outcome(number: int, right: bool, length: int) -> Outcome:
        return Outcome(
            question=f"{number:04}",
            score=float(right),
            text="",
            completion_tokens=length,
            thinking_tokens=0,
            finish_reason="stop",
        )

    def outcomes(point: tr.OperatingPoint) -> Iterator[Outcome]:
        for number, length in enumerate(drawn_length(rng, QUESTIONS)):
            slip = rng.random() < 0.03
            yield outcome(number, bool((need[number] < worth(point)) != slip), int(length))

    return Quality(
        key=QualityKey(
            bundle="", task="", task_name="scripted", measure="accuracy", max_tokens=MAX_TOKENS
        ),
        points=tuple(
            MeasuredPoint(point=point, outcomes=tuple(outcomes(point))) for point in points
        ),
    )


def told(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    counts = Counter(verdict["outcome"] for verdict in verdicts)
    asked, admitted = len(verdicts), len(verdicts) - counts["refused"]
    late = [verdict["over"] for verdict in verdicts if verdict["outcome"] == "late"]
    return {
        "asked": asked,
        **{name: counts[name] for name in ("held", "cut", "late", "refused")},
        "held_of_admitted_percent": round(100 * counts["held"] / max(1, admitted), 3),
        "admitted_percent": round(100 * admitted / asked, 3),
        "overshoot_percent": {
            "median": round(100 * median(late), 1) if late else 0.0,
            "largest": round(100 * max(late), 1) if late else 0.0,
        },
        "points_used": len({verdict["point"] for verdict in verdicts} - {None}),
    }


def stepped(rows: Sequence[Sequence[Verdict]]) -> dict[str, Any]:
    """Of the requests after each step: what became of them, and when the choice was the last's."""
    settled = [
        next(at for at in range(AFTER) if row[at]["point"] == row[-1]["point"]) for row in rows
    ]
    missed = [[verdict["outcome"] != "held" for verdict in row] for row in rows]
    return {
        f"requests {LEARNT + 1} to {AFTER}": told(
            [found for row in rows for found in row[LEARNT:]]
        ),
        "missed_percent_by_place": [
            round(float(share), 1) for share in 100 * np.mean(missed, axis=0)
        ],
        "requests_until_the_choice_shifts": {
            "median": median(settled),
            "p95": float(np.percentile(settled, 95)),
            "largest": max(settled),
        },
    }


if __name__ == "__main__":
    main()
