"""A task folder from a seed: pictures, questions, answers, and a card that says how it was made."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tightrope.arrays import Array
from tightrope.errors import InputError
from tightrope.folders import finished_folder, reaching
from tightrope.profiles.scenes.card import SMALL, MakeSummary, card
from tightrope.profiles.scenes.kinds import make_one
from tightrope.profiles.scenes.lines import Order
from tightrope.profiles.scenes.make_config import MakeConfig
from tightrope.profiles.task.task import FILE, write_task
from tightrope.progress import Progress, silent


def make_task(
    config: MakeConfig, output: Path, *, force: bool = False, progress: Progress = silent
) -> MakeSummary:
    """Writes a task folder whole or not at all; `force` replaces a task that is there.

    The same config gives the same lines and the same pixels everywhere. Raises InputError if
    `output` is taken or cannot be written, and if no scene has room for the types that are wanted.
    """
    # A name of its own even for `.`, which has none.
    target = Path(os.path.abspath(output))
    _check_target(target, force)
    with finished_folder(target, InputError) as folder:
        lines: list[dict[str, Any]] = []
        for index in range(config.images):
            progress("drawing", index / config.images)
            lines += _write_scene(config, index, folder)
        if not lines:
            raise InputError(
                f"no question of type {', '.join(config.types or ())} came up in {config.images} "
                "scenes; make more of them, or take another type"
            )
        write_task(folder, lines)
        progress("hashing", 1.0)
        summary = _summary(output, lines, pixel_hash(folder))
        text = card(config, summary, target.name)
        (folder / "README.md").write_text(text, encoding="utf-8")
    return summary


def pixel_hash(folder: Path) -> str:
    """sha256 of all pictures of a task in the order of their names: shape and bytes of each.

    Of decoded pixels, because compressed files differ from one version of zlib to the next: uint8,
    or little-endian uint16 for depth.
    """
    digest = hashlib.sha256()
    for file in sorted([*folder.glob("images/*.png"), *folder.glob("depth/*.png")]):
        with Image.open(file) as image:
            # Pillow before 11.1 decodes 16-bit grey to 32 bits.
            pixels: Array = np.asarray(image)
        if pixels.dtype != np.uint8:
            pixels = pixels.astype("<u2")
        digest.update(str(pixels.shape).encode())
        digest.update(pixels.tobytes())
    return digest.hexdigest()


def _check_target(target: Path, force: bool) -> None:
    with reaching("target", target):
        if not target.exists() or (target.is_dir() and not any(target.iterdir())):
            return
        if not (target / FILE).is_file():
            raise InputError(f"{target} is no task and is not replaced; choose another name")
    if not force:
        raise InputError(f"{target} exists; choose another name, or replace it with --force")


def _write_scene(config: MakeConfig, index: int, folder: Path) -> list[dict[str, Any]]:
    """Draws a scene if a question about it is wanted; returns the lines that are."""
    order = Order(
        split=config.split,
        seed=config.seed,
        index=index,
        pixels=config.side,
        level=config.level,
        shares=config.shares_of_mix,
    )
    made = make_one(config.kind, order)
    lines = [line for line in made.lines if config.types is None or line["type"] in config.types]
    if any(line["images"] for line in lines):
        for name, pixels in made.draw().items():
            (folder / name).parent.mkdir(exist_ok=True)
            Image.fromarray(pixels).save(folder / name)
    return lines


def _summary(output: Path, lines: Sequence[Mapping[str, Any]], pixel_sha256: str) -> MakeSummary:
    sizes = [line["info"]["smallest"] for line in lines if "smallest" in line["info"]]
    levels = [str(line["info"]["level"]) for line in lines if "level" in line["info"]]
    kinds = [line["info"]["kind"] for line in lines if "kind" in line["info"]]
    return MakeSummary(
        task=str(output),
        questions=len(lines),
        images=len({name for line in lines for name in line["images"]}),
        by_type=dict(Counter(line["type"] for line in lines)),
        by_kind=dict(Counter(kinds)),
        by_level={} if kinds else dict(Counter(levels)),
        placed=len(sizes),
        small=sum(size < SMALL for size in sizes),
        pixel_sha256=pixel_sha256,
    )
