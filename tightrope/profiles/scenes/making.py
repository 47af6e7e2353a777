"""A task folder from a seed: pictures, questions, answers, and a card that says how it was made."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tightrope.errors import InputError
from tightrope.folders import finished_folder
from tightrope.profiles.scenes.card import card
from tightrope.profiles.scenes.kinds import KINDS, Order, make_one
from tightrope.profiles.scenes.sample import scene_rng
from tightrope.profiles.scenes.scene import Level, Split
from tightrope.profiles.task.task import FILE, write_task

SMALL = 45
"""Units of 336 below which a thing is called small on the card."""
Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeConfig:
    """What is drawn. Raises InputError for a value that its kind does not have."""

    kind: str = "scenes"
    split: Split = "test"
    """Also decides which handwritten digits are used; no two splits share one."""
    seed: int = 0
    images: int = 100
    """Scenes. A clip or a set of views is one of them."""
    pixels: int | None = None
    """Side of a picture; the kind's usual one if None."""
    level: Level | None = None
    """None: a tenth easy, a fifth medium, the rest hard, of the levels that the kind has."""
    types: tuple[str, ...] | None = None
    """Types of questions that are kept; None keeps all."""

    def __post_init__(self) -> None:
        _check("kind", self.kind, tuple(KINDS))
        kind = KINDS[self.kind]
        scene_rng(self.split, self.seed, 0)
        if isinstance(self.images, bool) or not isinstance(self.images, int) or self.images < 1:
            raise InputError(f"images is {self.images!r}; accepted: a whole number from 1 on")
        if self.pixels is not None:
            _check(f"pixels of {self.kind}", self.pixels, kind.pixels)
        if self.level is not None:
            _check(f"level of {self.kind}", self.level, kind.levels)
        if self.types is not None:
            if not self.types:
                raise InputError("types is empty; accepted: one or more, or None for every type")
            for name in self.types:
                _check(f"type of {self.kind}", name, kind.types)

    @property
    def side(self) -> int:
        return KINDS[self.kind].pixels[0] if self.pixels is None else self.pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeSummary:
    """What a task folder holds."""

    task: str
    questions: int
    images: int
    """Picture files; depth images are not counted."""
    by_type: dict[str, int]
    by_level: dict[str, int]
    """Questions about pictures of each level; empty for a kind without levels."""
    placed: int
    """Questions that say where what they are about is to be seen."""
    small: int
    """Of these, questions about something under SMALL units."""
    pixel_sha256: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def make_task(
    config: MakeConfig, output: Path, *, force: bool = False, progress: Progress | None = None
) -> MakeSummary:
    """Writes a task folder whole or not at all; `force` replaces a task that is there.

    The same config gives the same lines and the same pixels everywhere. Raises InputError if
    `output` is taken or cannot be written, and if no scene has room for the types that are wanted.
    """
    # A name of its own even for `.`, which has none.
    target = Path(os.path.abspath(output))
    _check_target(target, force)
    report = progress or (lambda stage, share: None)
    with finished_folder(target, InputError) as folder:
        lines: list[dict[str, Any]] = []
        for index in range(config.images):
            report("drawing", index / config.images)
            lines += _write_scene(config, index, folder)
        if not lines:
            raise InputError(
                f"no question of type {', '.join(config.types or ())} came up in {config.images} "
                "scenes; make more of them, or take another type"
            )
        write_task(folder, lines)
        report("hashing", 1.0)
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
            pixels: npt.NDArray[Any] = np.asarray(image)
        if pixels.dtype != np.uint8:
            pixels = pixels.astype("<u2")
        digest.update(str(pixels.shape).encode())
        digest.update(pixels.tobytes())
    return digest.hexdigest()


def _check(name: str, value: object, accepted: Sequence[object]) -> None:
    # 336.0 equals 336 and would be found among them.
    if not any(value == choice and type(value) is type(choice) for choice in accepted):
        offered = ", ".join(map(str, accepted)) or "none, leave it out"
        raise InputError(f"{name} is {value!r}; accepted: {offered}")


def _check_target(target: Path, force: bool) -> None:
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
    levels = [line["info"]["level"] for line in lines if "level" in line["info"]]
    return MakeSummary(
        task=str(output),
        questions=len(lines),
        images=len({name for line in lines for name in line["images"]}),
        by_type=dict(Counter(line["type"] for line in lines)),
        by_level=dict(Counter(levels)),
        placed=len(sizes),
        small=sum(size < SMALL for size in sizes),
        pixel_sha256=pixel_sha256,
    )
