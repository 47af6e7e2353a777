"""`tightrope task show`: what a task asks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tightrope.checks import check_whole
from tightrope.cli.options import Json
from tightrope.cli.output import print_json, print_pairs, print_table
from tightrope.errors import InputError
from tightrope.folders import reaching
from tightrope.schemas import versioned

if TYPE_CHECKING:
    from tightrope.profiles.task.task import Item

_LONGEST = 160
_ON_A_SHEET = 24


def show(
    task: Annotated[
        Path, typer.Argument(metavar="DIR", help="The folder with images and task.jsonl.")
    ],
    id: Annotated[
        str | None, typer.Option(metavar="ID", help="Show one question with all that is known.")
    ] = None,
    type: Annotated[str | None, typer.Option(metavar="T", help="Only questions of a type.")] = None,
    limit: Annotated[
        int | None,
        typer.Option(metavar="N", help="List the first N questions; also bounds the sheet, 24."),
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Draw pictures with boxes and questions on one."),
    ] = None,
    json: Json = False,
) -> None:
    """Count a task's questions by type, list them, show one, or draw them on a contact sheet."""
    if limit is not None:
        check_whole("--limit", limit, least=1)
    if sheet is not None:
        with reaching("--sheet", sheet):
            exists = sheet.exists()
        if exists or sheet.suffix.lower() != ".png":
            why = "exists" if exists else "is no PNG"
            raise InputError(f"--sheet {str(sheet)!r} {why}; accepted: a new file ending in .png")

    from tightrope.profiles.task.task import read_task

    items = _chosen(read_task(task).items, id, type)
    if sheet is not None:
        from tightrope.profiles.scenes.sheet import contact_sheet

        contact_sheet(items[: limit or _ON_A_SHEET], sheet)
    listed = items if id is not None else items[: limit or 0]
    if json:
        kinds = {name: {"questions": n, "example": _entry(it)} for name, n, it in _types(items)}
        entries = [_entry(item) for item in listed]
        found = {"task": str(task), "questions": len(items), "by_type": kinds, "items": entries}
        drawn = None if sheet is None else str(sheet)
        print_json(versioned("task", {**found, "sheet": drawn}))
        return
    if id is not None:
        print_pairs(str(task), _rows(items[0], task))
    elif listed:
        rows = [(item.id, _short(_asked(item)), _answer(item)) for item in listed]
        print_table(f"{task}, {len(listed)} of {len(items)}", ("id", "question", "answer"), rows)
    else:
        types = [(name, str(n), _short(_asked(it)), _answer(it)) for name, n, it in _types(items)]
        heads = ("type", "questions", "for example", "answer")
        print_table(f"{task}, {len(items)} questions", heads, types, numbers=("questions",))
    if sheet is not None:
        print(f"{sheet} written")


def _chosen(items: tuple[Item, ...], id: str | None, type: str | None) -> list[Item]:
    """Raises InputError where nothing is left."""
    if type is not None and all(item.type != type for item in items):
        known = ", ".join(dict.fromkeys(item.type for item in items))
        raise InputError(f"--type is {type!r}; the task has {known}")
    chosen = [item for item in items if type in (None, item.type) and id in (None, item.id)]
    if not chosen:
        raise InputError(f"--id is {id!r}, which no question here has; --limit 10 lists some")
    return chosen


def _types(items: list[Item]) -> list[tuple[str, int, Item]]:
    """Each type with its number of questions and the first of them."""
    numbers = Counter(item.type for item in items)
    first = {item.type: item for item in reversed(items)}
    return [(name, number, first[name]) for name, number in numbers.items()]


def _entry(item: Item) -> dict[str, Any]:
    return {
        "id": item.id,
        "images": [str(image) for image in item.images],
        "seconds": list(item.seconds),
        "messages": list(item.messages),
        "answers": list(item.answers),
        "type": item.type,
        "info": dict(item.info),
    }


def _rows(item: Item, task: Path) -> list[tuple[str, str]]:
    root = task.absolute()
    return [
        ("id", item.id),
        ("type", item.type),
        *(("image", str(image.relative_to(root))) for image in item.stills),
        *((f"frame at {at:g} s", str(image.relative_to(root))) for at, image in item.frames),
        *((message["role"], message["content"]) for message in item.messages),
        ("answer", _answer(item)),
        *((f"info: {name}", str(value)) for name, value in item.info.items()),
    ]


def _asked(item: Item) -> str:
    """All turns in one line."""
    return " / ".join(message["content"] for message in item.messages)


def _answer(item: Item) -> str:
    return " | ".join(dict.fromkeys(item.answers)) or "(none known)"


def _short(text: str) -> str:
    """The end is the question itself, even of a long text."""
    return text if len(text) <= _LONGEST else f"... {text[-_LONGEST:]}"
