"""Requests a second that keep what was promised, as AIPerf counts them: goodput.

A promise (service level objective, SLO) is a limit for one metric of a request, by AIPerf's names:
time_to_first_token, inter_token_latency (from the first token to the last, a step) and
request_latency. A request is good if it keeps all of them. Requests come one after another, so the
time that they took is the sum of their latencies.
https://docs.nvidia.com/aiperf/tutorials/metrics-analysis/benchmark-goodput-with-ai-perf
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tightrope.checks import check_one_of
from tightrope.profiles.latency.measured import Run

METRICS: dict[str, Callable[[Run], float | None]] = {
    "time_to_first_token": lambda run: run.ttft_ms,
    "inter_token_latency": lambda run: run.itl_ms,
    "request_latency": lambda run: run.total_ms,
}
SHORT = {
    "ttft": "time_to_first_token",
    "itl": "inter_token_latency",
    "total": "request_latency",
}

Slos = Mapping[str, float]
"""Milliseconds by the metric's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Goodput:
    """Of one point's requests."""

    good_request_count: int
    request_count: int
    goodput: float
    """Good requests a second."""


def metric(name: str) -> str:
    """The metric of a name or of its short form; raises InputError for what is none."""
    check_one_of("the metric of an SLO", name, [*SHORT, *METRICS])
    return SHORT.get(name, name)


def goodput(runs: Sequence[Run], slos: Slos) -> Goodput:
    """How many of `runs`, one or more, keep every one of `slos`."""
    good = sum(all(_kept(run, name, limit) for name, limit in slos.items()) for run in runs)
    seconds = sum(run.total_ms for run in runs) / 1e3
    return Goodput(
        good_request_count=good,
        request_count=len(runs),
        goodput=good / seconds,
    )


def _kept(run: Run, name: str, limit_ms: float) -> bool:
    value = METRICS[name](run)
    return value is None or value <= limit_ms  # one token has none between
