"""What `tightrope frontier show --live` says: requests beside the profile, answers alike or not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tightrope.cli.output import print_json, print_pairs, print_table
from tightrope.point import in_words

if TYPE_CHECKING:
    from tightrope.profiles.frontier.drift import Agreed, Drift, LiveReport


def show_live(bundle: Path, backend: str, threads: int | None, *, json: bool) -> None:
    """Print what the last requests took here beside what the latency file says of them."""
    import tightrope
    from tightrope.profiles.frontier.drift import live_report

    model = tightrope.load(bundle, backend=backend, threads=threads, live=False)
    report = live_report(model)
    if json:
        print_json(report.to_dict())
        return
    _print_drift(bundle, report)
    if report.agreement:
        _print_agreement(report)
    else:
        print("\nno answer was repeated without pruning: load(..., shadow=0.01) does it when idle")


def _print_drift(bundle: Path, report: LiveReport) -> None:
    left_out = [f"{count} {why}" for why, count in report.left_out.items()]
    rows = [
        ("measured", report.measured),
        ("requests", f"{report.requests} kept, {report.compared} compared"),
        ("left out", ", ".join(left_out) or "none"),
        ("the last one", "none" if report.newest_s is None else f"{_ago(report.newest_s)} ago"),
        ("a new process plans by", f"{report.pace:.2f} times what was measured"),
    ]
    print_pairs(f"{bundle}: {report.key}", rows)
    numbers = ("observed ms", "predicted ms", "ratio", "difference ms", "95 % interval")
    print_table(
        "\nMeans of the stages",
        ("stage", *numbers, "is"),
        map(_drift_row, report.stages),
        numbers=numbers,
    )


def _drift_row(drift: Drift) -> tuple[str, ...]:
    ratio, interval = drift.ratio, drift.interval_ms
    return (
        drift.stage.replace("_", " "),
        f"{drift.observed_ms:.2f}",
        f"{drift.predicted_ms:.2f}",
        "-" if ratio is None else f"{ratio:.2f}",
        f"{drift.difference_ms:+.2f}",
        "-" if interval is None else f"{interval[0]:+.2f}..{interval[1]:+.2f}",
        drift.verdict,
    )


def _print_agreement(report: LiveReport) -> None:
    numbers = ("n", "same answer", "95 % interval", "same tokens")
    print_table(
        "\nBeside the unpruned answer, in idle moments",
        ("point", *numbers),
        map(_agreed_row, report.agreement),
        numbers=numbers,
    )


def _agreed_row(agreed: Agreed) -> tuple[str, ...]:
    from tightrope.quality_file import point_of

    low, high = agreed.interval
    return (
        in_words(point_of(agreed.point)),
        str(agreed.answers),
        f"{agreed.same:.3f}",
        f"{low:.3f}..{high:.3f}",
        f"{agreed.token_agreement:.3f}",
    )


def _ago(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
