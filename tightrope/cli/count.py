"""What `tightrope run --dry-run` prints: what a request would spend and take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tightrope.cli.output import bytes_text, print_json, print_pairs, print_table
from tightrope.cli.plan import plan_rows

if TYPE_CHECKING:
    from tightrope.latency import Estimate, Prediction
    from tightrope.runtime.count import Count


def print_count(count: Count, *, json: bool) -> None:
    """The count for people, or as one JSON object."""
    if json:
        print_json(count.to_dict())
        return
    print_pairs(
        "Spent, if the answer is as long as it may be",
        [
            ("prompt tokens", str(count.prompt_tokens)),
            ("of these kept", str(count.cached_tokens)),
            ("visual tokens", str(count.visual_tokens)),
            ("visual tokens kept", str(count.visual_tokens_kept)),
            ("completion tokens, at most", str(count.completion_tokens)),
            ("occupied slots", str(count.occupied_slots)),
            ("keys and values", bytes_text(count.slot_bytes)),
            ("backend", count.backend),
        ],
    )
    if count.prediction is not None:
        _print_prediction(count.prediction)
    if count.plan is not None:
        print_pairs("\nPlan", plan_rows(count.plan))
    if count.notes:
        print_pairs("\nNotes", [("!", note) for note in count.notes])


def _print_prediction(prediction: Prediction) -> None:
    times = {
        "first token": prediction.ttft,
        "a token": prediction.tpot,
        "in all": prediction.total,
    }
    columns = ("mean", "p50", "p95", "p99")
    print_table(
        "\nPredicted ms",
        ("", *columns),
        [(name, *_figures(estimate)) for name, estimate in times.items()],
        numbers=columns,
    )
    stages = prediction.to_dict()["stages"].items()
    print_pairs(
        "\nOf these, ms before any spread",
        [(name.removesuffix("_ms").replace("_", " "), f"{ms:.1f}") for name, ms in stages],
        numbers=True,
    )


def _figures(estimate: Estimate) -> list[str]:
    return [f"{value:.1f}" for value in estimate.to_dict().values()]
