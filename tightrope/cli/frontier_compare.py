"""`tightrope frontier compare`: which bundle, board or mode is better, and at which deadline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tightrope.cli.options import Backend, Images, Json, Question, Threads
from tightrope.cli.output import print_json, print_pairs, print_table
from tightrope.errors import InputError
from tightrope.point import in_words

if TYPE_CHECKING:
    from tightrope.paired import Comparison
    from tightrope.profiles.frontier.compare import Compared, Range, SamePoint, Worth


def compare(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="BUNDLE|LATENCY.json...",
            help="Bundles, and latency files of other machines or dates; the first bundle is what "
            "the others are held against.",
        ),
    ],
    task: Annotated[
        list[str] | None,
        typer.Option("--task", metavar="NAME", help="By these alone; may be repeated."),
    ] = None,
    prompt: Question = None,
    image: Images = None,
    backend: Backend = "auto",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Hold bundles, boards, power modes, dates and tasks against each other.

    Every bundle on every machine that a latency file is there of, in its state folder or named.
    """
    files = [path for path in paths if path.suffix == ".json"]
    bundles = [path for path in paths if path.suffix != ".json"]
    if not bundles:
        raise InputError("no bundle is named; a latency file is compared as one of its bundle")

    import tightrope
    from tightrope.profiles.frontier.compare import compare_sides
    from tightrope.profiles.frontier.sides import find_sides
    from tightrope.profiles.frontier.typical import typical

    models = [
        tightrope.load(path, backend=backend, threads=threads, live=False) for path in bundles
    ]
    asked = [(model, typical(model, prompt, image or [])) for model in models]
    compared = compare_sides(find_sides(asked, files, task or []))
    if json:
        print_json(compared.to_dict())
        return
    _print(compared)


def _print(compared: Compared) -> None:
    letters = [chr(ord("A") + place) for place in range(len(compared.sides))]
    print_table(
        "Compared",
        ("", "differs in", "bundle", "task", "measured on", "date"),
        [
            (letter, name, side.bundle, side.quality.key.task_name, str(side.record.key), date)
            for letter, name, side in zip(letters, compared.names, compared.sides, strict=True)
            for date in [side.record.date[:10]]
        ],
    )
    if compared.points:
        print_table(
            "\nThe same points, question by question",
            ("point", "side", *_NUMBERS, *_AGAINST),
            [row for point in compared.points for row in _point_rows(point, letters)],
            numbers=(*_NUMBERS, *_AGAINST),
        )
    print_table(
        "\nWhat the planners take",
        ("deadline ms", "side", "takes", *_NUMBERS, *_AGAINST, "beside A"),
        [row for each in compared.deadlines for row in _range_rows(each, letters)],
        numbers=(*_NUMBERS, *_AGAINST),
    )
    if compared.notes:
        print_pairs("\nNotes", [("!", note) for note in compared.notes])


_NUMBERS = ("quality", "n", "p99 ms")
_AGAINST = ("minus A", "95 % interval")


def _point_rows(point: SamePoint, letters: Sequence[str]) -> list[list[str]]:
    """One for each side that has the point, the point named once."""
    rows = [
        [letter, *_worth(worth), *_comparison(against)]
        for letter, worth, against in zip(letters, point.sides, point.against_first, strict=True)
        if worth is not None
    ]
    return [[in_words(point.point) if not at else "", *row] for at, row in enumerate(rows)]


def _range_rows(found: Range, letters: Sequence[str]) -> list[list[str]]:
    to = "or more" if found.to_ms is None else f"to {found.to_ms:g}"
    rows = []
    for place, letter in enumerate(letters):
        worth, verdict = found.sides[place], found.verdicts[place]
        takes = "nothing is in time" if worth is None else in_words(worth.point)
        cells = [*_worth(worth), *_comparison(found.against_first[place]), verdict or ""]
        rows.append([f"{found.from_ms:g} {to}" if not place else "", letter, takes, *cells])
    return rows


def _worth(worth: Worth | None) -> list[str]:
    if worth is None:
        return ["", "", ""]
    needed = "" if worth.p99_ms is None else f"{worth.p99_ms:.1f}"
    return [f"{worth.quality:.3f}", str(worth.questions), needed]


def _comparison(found: Comparison | None) -> list[str]:
    if found is None:
        return ["", ""]
    low, high = found.interval
    return [f"{found.difference:+.3f}", f"{low:+.3f}..{high:+.3f}"]
