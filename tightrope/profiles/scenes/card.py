"""The card of a task that was drawn: what it holds, and the command that makes it again."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from typing import Any

from tightrope.profiles.scenes.make_config import MakeConfig

SMALL = 45
"""Units of 336 below which a thing is called small."""

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (10**6, "100K<n<1M"))

_KINDS = {
    "scenes": """\
Drawn pictures of {side} x {side} pixels with two to nine things, at most one in each cell of a
3 x 3 arrangement: objects (circle, square, triangle, star, cross, ring in eight colours, plain or
striped), plates with a handwritten digit, signs with a word. Type `recall` has no picture: a fact
early in a text of some 60 to 400 words.""",
    "crowded": """\
Drawn pictures of {side} x {side} pixels with many objects close together, which reach over each
other's edges by 4 units at most. A question names one or two of them; all others are distractors
that share a word or two with what it names. The level is the number of objects.""",
    "fine": """\
Drawn pictures of {side} x {side} pixels with two to four large shapes, and in small print a word
and one to three digits. The level is the height of the print in 336ths of the picture's width.""",
    "background": """\
Drawn pictures of {side} x {side} pixels whose nine ninths have grounds of their own: plain, noisy
or lined, bright or dark. Questions are about the ground, or about the one ninth without an object.
The level is the contrast of the textures in grey levels.""",
    "several": """\
Sets of pictures of {side} x {side} pixels with two to four objects each; one has a plate with a
handwritten digit, one a sign with a word. A question names something that one of them shows. The
level is the number of pictures.""",
    "board": """\
Drawn pictures of {side} x {side} pixels of a board with 4 x 4 squares, named a 1 to d 4 from the
top left, with objects on them: more to count and to list than a scene has. The level is the largest
number of objects; how many share a shape or a colour is drawn evenly.""",
    "mix": """\
Scenes of all kinds in stated shares ({shares}), with up to four questions each, every kind at its
usual level. Clips have four frames. `info.kind` says of which kind a question is.""",
    "tiled": """\
Drawn pictures of {side} x {side} pixels with things of the size that they have in a picture of 336:
scaled down to that, they are too small to tell apart. A place such as `top left` is a ninth of the
whole picture and may hold several things.""",
    "clips": """\
Clips of 4 to 16 frames of {side} x {side} pixels, each frame a file, in the order of `images`
and taken at `seconds`. Objects move straight or stand still; one of them appears, disappears or
changes colour. Questions count frames from 1.""",
    "views": """\
Sets of two to four views of {side} x {side} pixels: flat objects at different depths before a wall,
seen by pinhole cameras that stand beside each other and turn left or right. `info.views` holds for
each view its `depth` image (16-bit PNG, millimetres along the camera's z), its `pose` (camera to
world, 4 x 4, metres; x right, y down, z ahead) and its `intrinsics` (3 x 3). The pixel in column u
and row v is the ray through (u + 0.5, v + 0.5).""",
}

_WITH_DIGITS = ("scenes", "several", "tiled", "mix")
_DIGITS = """ The handwritten digits come from scikit-learn's copy of the UCI data set "Optical
Recognition of Handwritten Digits" (E. Alpaydin, C. Kaynak), CC BY 4.0; they are enlarged and placed
on a plate. No digit is in two of the splits train, dev and test."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeSummary:
    """What a task folder holds."""

    task: str
    questions: int
    images: int
    """Picture files; depth images are not counted."""
    by_type: dict[str, int]
    by_kind: dict[str, int]
    """Questions of each kind in a mix; empty for a single kind."""
    by_level: dict[str, int]
    """Questions about pictures of each level; empty for a mix, and for a kind without levels."""
    placed: int
    """Questions that say where what they are about is to be seen."""
    small: int
    """Of these, questions about something under SMALL units."""
    pixel_sha256: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def card(config: MakeConfig, summary: MakeSummary, name: str) -> str:
    """The README of a task folder called `name`, with the metadata block that hubs read."""
    size = next((text for limit, text in _SIZES if summary.questions < limit), "n>1M")
    tables = [_table("type", summary.by_type)]
    for head, counts in (("kind", summary.by_kind), ("level", summary.by_level)):
        if counts:
            tables.append(_table(head, counts))
    numbers = "\n".join(tables)
    return f"""\
---
license: apache-2.0
task_categories: [visual-question-answering]
language: [en]
size_categories: [{size}]
---
# {config.kind.capitalize()}, split {config.split}, seed {config.seed}

{summary.questions} questions about {summary.images} pictures, drawn by `tightrope`.

{_KINDS[config.kind].format(side=config.side, shares=_shares(config))}

{numbers}
{_small(summary)}
`task.jsonl` has one JSON object a line: `id`, `images` (paths relative to this folder),
`question`, or `messages` where a question has an earlier turn, `answer`, `type`, and `info`: split
and number of the scene, `about` (left, top, right, bottom in pixels of what the question names;
`about_images` says in which of several images, from 0), `smallest` (the shortest side among these,
in 336ths of the picture's width), and `thought` where an answer has a worked one. An answer is
right if it is equal to the reference word for word.

## Made by

```sh
{command(config, name)}
```

The same command draws the same pixels on every machine. sha256 of shape and bytes of all decoded
pictures, in the order of their names:

    {summary.pixel_sha256}

## Licence

Apache-2.0.{_DIGITS if config.kind in _WITH_DIGITS else ""}
"""


def command(config: MakeConfig, name: str) -> str:
    """The command line that makes the task again as the folder `name`."""
    words = ["tightrope", "task", "make", "-o", name, "--kind", config.kind]
    words += ["--split", config.split, "--seed", str(config.seed)]
    words += ["--images", str(config.images), "--pixels", str(config.side)]
    if config.level is not None:
        words += ["--level", str(config.level)]
    for type in config.types or ():
        words += ["--type", type]
    for kind, share in (config.shares or {}).items():
        words += ["--share", f"{kind}={share}"]
    return shlex.join(words)


def _shares(config: MakeConfig) -> str:
    return ", ".join(f"{kind} {share} %" for kind, share in config.shares_of_mix.items())


def _table(head: str, counts: dict[str, int]) -> str:
    rows = "".join(f"| {name} | {count} |\n" for name, count in counts.items())
    return f"| {head} | questions |\n|---|---:|\n{rows}"


def _small(summary: MakeSummary) -> str:
    if not summary.placed:
        return ""
    share = 100 * summary.small / summary.placed
    return (
        f"{summary.small} of the {summary.placed} questions that name something to be seen "
        f"({share:.0f} %)\nare about something under {SMALL} units, which are 336ths of the "
        "picture's width.\n"
    )
