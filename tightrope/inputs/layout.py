"""Where text and visual tokens of a prompt stand: runs, ordinals, and what is left when some go.

A prompt has one placeholder for each image. The image's tower says what stands in its place: runs
of visual tokens, and of text ids between them where tiles or rows are separated. Every token of the
unpruned stream has an ordinal; a pruned token leaves a gap, nothing is renumbered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tightrope.arrays import Floats, Indices, Ordinals


@dataclass(frozen=True, slots=True)
class Text:
    """Tokens of the vocabulary."""

    ids: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Visual:
    """The next `count` visual tokens of an image, in the tower's order."""

    count: int
    columns: int = 0
    """Of the grid that they fill row by row; 0 where no rule of positions asks for it."""

    def __len__(self) -> int:
        return self.count


Run = Text | Visual
Size = tuple[int, int]
"""Width and height in pixels."""
ImageLayout = tuple[Run, ...]
"""What one image puts in the place of its placeholder."""


def visual_tokens(layout: ImageLayout) -> int:
    """Visual tokens of an image, separators not counted."""
    return sum(run.count for run in layout if isinstance(run, Visual))


@dataclass(frozen=True, slots=True)
class Placed:
    """Text, or the kept ones among `count` visual tokens of an image, at their first ordinal."""

    ordinal: int
    ids: tuple[int, ...] = ()
    image: int = -1
    first: int = 0
    """Place of the run's first token among the visual tokens of its image."""
    count: int = 0
    columns: int = 0
    behind: int | None = None
    """Of a frame beside the one before: by how much its time exceeds that of the clip's first"""


def runs_of(
    token_ids: Sequence[int], placeholder: int | None, images: Sequence[ImageLayout], start: int
) -> Iterator[Placed]:
    """The prompt's runs in order, each with its ordinal, counted from `start`.

    One image for each placeholder, in order; without images a placeholder is text.
    """
    ids, ordinal, begin = list(token_ids), start, 0
    marks = [i for i, token in enumerate(ids) if token == placeholder] if images else []
    for number, mark in enumerate([*marks, len(ids)]):
        if text := tuple(ids[begin:mark]):
            yield Placed(ordinal, ids=text)
            ordinal += len(text)
        begin, first = mark + 1, 0
        for run in images[number] if mark < len(ids) else ():
            if isinstance(run, Text):
                yield Placed(ordinal, ids=run.ids)
            else:
                yield Placed(ordinal, (), number, first, run.count, run.columns)
                first += run.count
            ordinal += len(run)


@dataclass(frozen=True, slots=True)
class Stream:
    """Tokens ready for the decoder."""

    embeds: Floats
    """[S,E]"""
    ordinals: Ordinals
    """[S]"""
    visual: Indices
    """Places of visual tokens, ascending"""
    next_ordinal: int
    runs: tuple[Placed, ...]
    """All of the unpruned stream, for the rule of positions"""
    deepstack: Floats | None = None
    """[S,D,E], zeros but for visual tokens; None where no image brought any"""


@dataclass(frozen=True, slots=True)
class ImageTokens:
    """What one image brings: its layout, and those of its visual tokens that are kept."""

    layout: ImageLayout
    index: Indices
    """[K] ascending places among its visual tokens; a merging selector may name one twice"""
    embeds: Floats
    """[K,E]"""
    deepstack: Floats | None = None
    """[K,D,E], levels that go with them"""
    behind: int | None = None
    """As of `Placed`"""

    @property
    def available(self) -> int:
        """Visual tokens before selection, V."""
        return visual_tokens(self.layout)


@dataclass(frozen=True, slots=True)
class Whole:
    """Tokens of one image that stand in one call, because they attend to one another."""

    start: int
    """Place of the first."""
    stop: int
    last: int
    """The ordinal that all of them reach: of the last one, whether or not it was kept."""


def wholes(stream: Stream) -> list[Whole]:
    """Those of a stream, in order."""
    found = []
    for run in stream.runs:
        if not run.ids:
            ends = run.ordinal, run.ordinal + run.count
            start, stop = np.searchsorted(stream.ordinals, ends)
            found.append(Whole(int(start), int(stop), run.ordinal + run.count - 1))
    return found


def reach(stream: Stream) -> Ordinals:
    """[S]: the newest ordinal that each token attends to where images see themselves whole."""
    ends: Ordinals = stream.ordinals.copy()
    for whole in wholes(stream):
        ends[whole.start : whole.stop] = whole.last
    return ends


def assemble(
    token_ids: Sequence[int],
    placeholder: int | None,
    images: Sequence[ImageTokens],
    embed: Callable[[Sequence[int]], Floats],
    start: int = 0,
) -> Stream:
    """The prompt's tokens, each image's kept ones in the place of its placeholder.

    embed: token ids to [S,E]. start: the first ordinal.
    """
    parts, ordinals, visual = [], [], []
    levels: list[tuple[int, Floats]] = []
    place, next_ordinal = 0, start
    layouts = [image.layout for image in images]
    runs = tuple(
        run if run.image < 0 else replace(run, behind=images[run.image].behind)
        for run in runs_of(token_ids, placeholder, layouts, start)
    )
    for run in runs:
        if run.ids:
            parts.append(embed(run.ids))
            ordinals.append(np.arange(run.ordinal, run.ordinal + len(run.ids)))
        else:
            image = images[run.image]
            begin, end = np.searchsorted(image.index, [run.first, run.first + run.count])
            parts.append(image.embeds[begin:end])
            ordinals.append(run.ordinal - run.first + image.index[begin:end])
            visual.append(np.arange(place, place + end - begin))
            if image.deepstack is not None:
                levels.append((place, image.deepstack[begin:end]))
        place += len(parts[-1])
        next_ordinal = run.ordinal + len(run.ids) + run.count
    return Stream(
        np.concatenate(parts),
        np.concatenate(ordinals).astype(np.int32),
        np.concatenate(visual) if visual else np.zeros(0, np.int64),
        next_ordinal,
        runs,
        _spread(levels, place),
    )


def _spread(levels: Sequence[tuple[int, Floats]], length: int) -> Floats | None:
    """[S,D,E]: each part [K,D,E] at its place among `length` tokens, zeros elsewhere."""
    if not levels:
        return None
    whole = np.zeros((length, *levels[0][1].shape[1:]), np.float32)
    for place, part in levels:
        whole[place : place + len(part)] = part
    return whole
