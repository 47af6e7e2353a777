"""What is counted for Prometheus: times, tokens, deadlines; no word of a prompt or an answer."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from tightrope.jetson.telemetry import telemetry_here
from tightrope.runtime.answer import Answer
from tightrope.runtime.server.board import BoardFigures
from tightrope.runtime.server.refusal import Refused

UNMET = ("busy", "slowed", "budget_unreachable")
"""What is said of a limit of time that cannot be kept."""
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)
_TOKENS = tuple(2**power for power in range(14))


class Metrics:
    """Figures of one server, on a registry of its own."""

    def __init__(self, in_work: Callable[[], int]) -> None:
        """in_work: how many requests are."""
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        registry.register(BoardFigures(telemetry_here()))

        def histogram(name: str, sentence: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(
                f"tightrope_{name}", sentence, ["model"], buckets=buckets, registry=registry
            )

        def counter(name: str, sentence: str, *labels: str) -> Counter:
            return Counter(f"tightrope_{name}", sentence, ["model", *labels], registry=registry)

        self._queue = histogram("queue_seconds", "Waiting for the engine.", _SECONDS)
        self._ttft = histogram("ttft_seconds", "Until the first token.", _SECONDS)
        self._total = histogram("total_seconds", "Until the last token.", _SECONDS)
        self._itl = histogram(
            "inter_token_seconds", "Mean from token to token of an answer.", _TOKEN_SECONDS
        )
        self._prompt = histogram("prompt_tokens", "Of prompts, images unpruned.", _TOKENS)
        self._completion = histogram("completion_tokens", "Of answers.", _TOKENS)
        self._visual = histogram("visual_tokens", "Of images, before selection.", _TOKENS)
        self._kept = histogram("visual_tokens_kept", "Of these, what was kept.", _TOKENS)
        self._cached = counter("cached_tokens", "Tokens of prompts that were known already.")
        self._slots = histogram("occupied_slots", "At the end of an answer.", _TOKENS)
        self._answers = counter("answers", "Finished answers, by why they ended.", "finish_reason")
        self._deadlines = counter(
            "deadlines", "Requests with a limit of time: held, cut, late or refused.", "outcome"
        )
        self._refused = Counter(
            "tightrope_refused", "Requests without an answer.", ["status"], registry=registry
        )
        self._left = counter("left", "Requests whose client was gone before the end.")
        work = Gauge("tightrope_requests_in_work", "Running and waiting.", registry=registry)
        work.set_function(in_work)

    def answered(self, model: str, answer: Answer) -> None:
        """Count a finished answer."""
        used, took = answer.usage, answer.timings
        self._queue.labels(model).observe(took.queue_ms / 1e3)
        self._ttft.labels(model).observe(took.ttft_ms / 1e3)
        self._total.labels(model).observe(took.total_ms / 1e3)
        if len(answer.token_ids) > 1:
            step = took.decode_ms / (len(answer.token_ids) - 1)
            self._itl.labels(model).observe(step / 1e3)
        self._prompt.labels(model).observe(used.prompt_tokens)
        self._completion.labels(model).observe(used.completion_tokens)
        if used.visual_tokens:
            self._visual.labels(model).observe(used.visual_tokens)
            self._kept.labels(model).observe(used.visual_tokens_kept)
        self._cached.labels(model).inc(used.cached_tokens)
        self._slots.labels(model).observe(used.occupied_slots)
        self._answers.labels(model, answer.finish_reason).inc()
        if answer.deadline_met is not None:
            self._deadlines.labels(model, _outcome(answer)).inc()

    def refused(self, refused: Refused, model: str | None) -> None:
        """Count a request that got no answer. model: of one that was understood so far."""
        self._refused.labels(str(refused.status)).inc()
        if model is not None and refused.code in UNMET:
            self._deadlines.labels(model, "refused").inc()

    def left(self, model: str) -> None:
        """Count a request whose client is gone."""
        self._left.labels(model).inc()

    def page(self) -> tuple[bytes, str]:
        """All figures in Prometheus' text format, and what it is called."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST


def _outcome(answer: Answer) -> str:
    if answer.deadline_met:
        return "held"
    return "cut" if answer.finish_reason == "deadline" else "late"
