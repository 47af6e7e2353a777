"""What a subcommand writes: one JSON object, tables for people, progress on a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import rich.progress
from rich.console import Console
from rich.table import Table

from tightrope.progress import Progress, silent


def print_json(value: object) -> None:
    """One JSON object on standard output: all that `--json` prints there."""
    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    numbers: Sequence[str] = (),
) -> None:
    """A title, column heads and rows on standard output.

    numbers: columns that are aligned to the right and never broken.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in columns:
        if name in numbers:
            table.add_column(name, justify="right", no_wrap=True)
        else:
            table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    _print(title, table)


def print_pairs(
    title: str,
    rows: Iterable[tuple[str, str]],
    *,
    numbers: bool = False,
    to_stderr: bool = False,
) -> None:
    """A title, then a name and its value on each line.

    numbers: the values are aligned to the right.
    """
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="cyan")
    table.add_column(overflow="fold", justify="right" if numbers else "left")
    for name, value in rows:
        table.add_row(name, value)
    _print(title, table, to_stderr=to_stderr)


@contextmanager
def progress_on_terminal() -> Iterator[Progress]:
    """A function to report progress to; it draws on standard error, and only on a terminal."""
    if not sys.stderr.isatty():
        yield silent
        return
    columns = (
        rich.progress.BarColumn(bar_width=24),
        rich.progress.TaskProgressColumn(),
        rich.progress.TimeElapsedColumn(),
        rich.progress.TextColumn("{task.description}"),
    )
    console = _console(to_stderr=True)
    with rich.progress.Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=1.0)

        def report(what: str, share: float) -> None:
            bar.update(task, description=what, completed=share)

        yield report


def figure(value: float) -> str:
    """A small number as 2.4e-06."""
    return f"{value:.1e}"


def gibibytes(num_bytes: int | None) -> str:
    """ "7.4 GiB", or "unknown"."""
    return "unknown" if num_bytes is None else f"{num_bytes / 2**30:.1f} GiB"


def mebibytes(num_bytes: int | None) -> str:
    """ "256 MiB", or "unknown"."""
    return "unknown" if num_bytes is None else f"{num_bytes / 2**20:.0f} MiB"


def bytes_text(num_bytes: int) -> str:
    """The number of bytes in the unit that suits it: "617 B", "28.1 KiB", "16.4 MiB"."""
    if num_bytes < 2**10:
        return f"{num_bytes} B"
    for unit, size in (("KiB", 2**10), ("MiB", 2**20)):
        if num_bytes < 1000 * size:
            return f"{num_bytes / size:.1f} {unit}"
    return f"{num_bytes / 2**30:.1f} GiB"


def _print(title: str, table: Table, *, to_stderr: bool = False) -> None:
    console = _console(to_stderr=to_stderr)
    with console.capture() as capture:
        console.print(title, style="bold")
        console.print(table)
    for line in capture.get().splitlines():
        print(line.rstrip(), file=console.file)


def _console(*, to_stderr: bool = False) -> Console:
    stream = sys.stderr if to_stderr else sys.stdout
    width = None if stream.isatty() else 200
    return Console(file=stream, width=width, markup=False, highlight=False)
