"""What `tightrope profile` says of quality."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tightrope.cli.output import print_pairs, print_table
from tightrope.point import in_words

if TYPE_CHECKING:
    from tightrope.profiles.quality.report import Profiled
    from tightrope.quality_file import MeasuredPoint


def print_quality(profiled: Profiled) -> None:
    """Points by what they are worth, the best first, and how far the race came."""
    key = profiled.quality.key
    rows = [
        ("task", key.task_name),
        ("questions", f"{profiled.questions}, of {len(profiled.quality.points)} points at most"),
        ("still racing", f"{profiled.racing} points"),
        ("generated now", f"{profiled.asked} answers in {profiled.seconds:.0f} s"),
    ]
    if profiled.without_reference:
        rows.append(("left out", f"{profiled.without_reference} questions without an answer"))
    print_pairs("\nQuality", rows)
    measured = "accuracy" if key.measure == "accuracy" else "equal"
    numbers = ("n", measured, "95 % interval", "agreement", "tokens")
    points = map(_row, _best_first(profiled))
    print_table("", ("point", *numbers, "beaten by"), points, numbers=numbers)
    if profiled.notes:
        print_pairs("\nNotes", [("!", note) for note in profiled.notes])
    print(f"\nwritten to {profiled.file}")
    if not profiled.complete:
        print("the time was over before all was asked: the same command goes on")


def _best_first(profiled: Profiled) -> list[MeasuredPoint]:
    """Those that race still, then those that left, each by score."""
    from tightrope.profiles.quality.report import score_of

    def place(point: MeasuredPoint) -> tuple[bool, float]:
        return point.beaten_by is not None, -(score_of(point).accuracy or 0.0)

    return sorted(profiled.quality.points, key=place)


def _row(point: MeasuredPoint) -> tuple[str, ...]:
    from tightrope.profiles.quality.report import agreement_of, score_of, tokens_of

    score, agreement, tokens = score_of(point), agreement_of(point), tokens_of(point)
    low, high = score.interval or (0.0, 1.0)
    return (
        in_words(point.point),
        str(score.n),
        "" if score.accuracy is None else f"{score.accuracy:.3f}",
        f"{low:.3f} to {high:.3f}",
        "" if agreement is None else f"{agreement:.3f}",
        "" if tokens is None else f"{tokens:.1f}",
        "" if point.beaten_by is None else in_words(point.beaten_by),
    )
