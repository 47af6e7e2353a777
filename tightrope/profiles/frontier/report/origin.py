"""Where a report comes from: bundle, task, machine, versions and dates, in words."""

from __future__ import annotations

from tightrope import __version__
from tightrope.profiles.frontier.report.images import VEGA_LITE
from tightrope.profiles.frontier.report.report import Report
from tightrope.profiles.frontier.typical import Typical
from tightrope.runtime.images import image_header

SHORT = 12
"""Digits of a digest."""


def origin(report: Report) -> list[tuple[str, str]]:
    """A name and what is known of it, in the order in which they are asked for."""
    manifest, task, record = report.manifest, report.quality.key, report.latency
    source, held_out = manifest.source, record.held_out
    rows = [
        ("Bundle", f"{report.frontier.bundle}, digest {task.bundle:.{SHORT}}"),
        ("Model", ", ".join(filter(None, (manifest.family, source.name, source.revision)))),
        ("Precision", manifest.precision),
        ("Exported with", _versions(manifest.exporter)),
        ("Task", f"{task.task_name}, digest {task.task:.{SHORT}}"),
        ("Quality", f"{task.measure}, answers of at most {task.max_tokens} tokens"),
        ("Board", record.key.board),
        ("Power mode", record.key.power_mode),
        ("Backend", f"{record.key.backend} on {record.key.threads} threads"),
        (
            "Latency model",
            f"measured {record.date}, {record.requests} requests of {record.points} kinds; "
            f"{held_out.ttft_mape_percent:.1f} % off for the first token and "
            f"{held_out.tpot_mape_percent:.1f} % for a token of requests that it was not fitted to",
        ),
        ("Measured with", _versions(record.packages)),
    ]
    if report.runs is not None:
        runs = report.runs
        count = min(len(point.runs) for point in runs.points)
        told = f"measured {runs.date}, {len(runs.points)} points, each {count} times or more"
        rows.append(("Points from end to end", told))
    by = f"tightrope {__version__}, its plots by Vega-Lite {VEGA_LITE}"
    return [*rows, ("This report", f"made {report.made} by {by}")]


def request_in_words(request: Typical) -> str:
    """ "18 tokens of text, a PNG of 640 x 480"."""
    headers = map(image_header, request.images)
    images = [f"a {found.format} of {found.width} x {found.height}" for found in headers]
    return ", ".join([f"{request.text_tokens} tokens of text", *images])


def _versions(packages: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in packages.items())
