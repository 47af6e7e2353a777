"""Other layouts of questions about images, brought into a task's own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from tightrope.checks import check_one_of
from tightrope.errors import InputError
from tightrope.folders import reaching
from tightrope.profiles.task.layouts import easy_vqa, mmbench, pope, textvqa, vqav2
from tightrope.profiles.task.layouts.layout import Entry
from tightrope.profiles.task.task import FILE, Task, read_task, write_task

LAYOUTS: dict[str, Callable[[Path, Path | None], Iterator[Entry]]] = {
    "vqav2": vqav2.read,
    "textvqa": textvqa.read,
    "pope": pope.read,
    "mmbench": mmbench.read,
    "easy-vqa": easy_vqa.read,
}


def convert(layout: str, source: Path, images: Path | None, out: Path) -> Task:
    """Writes the questions of `source` as a task in folder `out`, and reads it back.

    layout: a name of LAYOUTS. images: the folder with the pictures, None where the layout holds
    them itself. Pictures are hard-linked into out/images, or copied where that is not possible.
    Raises InputError for another layout, missing or broken images, and an `out` that already has
    a task; the task file is written last, so that an import that failed can be repeated.
    """
    check_one_of("layout", layout, LAYOUTS)
    with reaching("out", out):
        if (out / FILE).exists():
            raise InputError(f"{out} already has a {FILE}; name another folder")
    with reaching("source", source):
        if not source.is_file():
            raise InputError(f"source is {str(source)!r}, which is not a file")
    lines = []
    placed: set[str] = set()
    for entry in LAYOUTS[layout](source, images):
        if Path(entry.image_name).name != entry.image_name:
            raise InputError(f"image {entry.image_name!r} is no plain file name")
        name = f"images/{entry.image_name}"
        if name not in placed:
            _place(entry.image, out / name)
            placed.add(name)
        lines.append({**entry.line, "images": [name]})
    file = write_task(out, lines)
    try:
        return read_task(out)
    except InputError:
        file.unlink()
        raise


def _place(image: Path | bytes, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(image, Path) and target.exists() and target.samefile(image):
            return
        target.unlink(missing_ok=True)
        if isinstance(image, bytes):
            target.write_bytes(image)
            return
        try:
            # Resolved, because a link to a symbolic link would keep its relative way.
            os.link(image.resolve(), target)
        except OSError:
            shutil.copyfile(image, target)
    except OSError as error:
        raise InputError(f"{target} cannot be written: {error}") from error
