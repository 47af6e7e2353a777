"""Pixels of a scene: signed distances, blended at the edges.

Only addition, multiplication, division, square roots and comparisons in double precision, which
give the same bits everywhere; so a scene has the same pixels on every machine.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tightrope.arrays import Doubles, Pixels
from tightrope.checks import check_whole
from tightrope.profiles.scenes.glyphs import digit_glyphs, word_bitmap
from tightrope.profiles.scenes.scene import SIDE, Ground, Scene, Split, Thing
from tightrope.profiles.scenes.words import BOARD, COLOURS

Field = Callable[[Doubles, Doubles], Doubles]
"""A value at points x and y, which may have any shape; a colour adds an axis of three."""

INK = np.array([18.0, 18.0, 22.0])
PAPER = np.array([236.0, 234.0, 226.0])
_STRIPE_SHADE = 0.3
_GRAIN = 4
"""Side in units of a noisy background's grains."""


def draw(scene: Scene, split: Split, pixels: int = SIDE) -> Pixels:
    """The picture: uint8 [pixels, pixels, 3]. `split` says which handwritten digits are used."""
    check_whole("pixels", pixels, least=14, unit="whole pixels")
    return render(scene, split, pixels, SIDE)


def render(scene: Scene, split: Split, pixels: int, side: int) -> Pixels:
    """As `draw`, of a scene that is `side` units wide, a multiple of SIDE."""
    rng = np.random.RandomState(scene.pixel_seed)
    scale = pixels / side
    canvas = _background(scene, rng, pixels, side)
    if scene.board:
        _checker(canvas)
    for ground in scene.grounds:
        _lay(canvas, scale, ground, rng)
    for thing in scene.things:
        tint = rng.randint(-10, 11, 3)
        if thing.kind == "object":
            outer, inner, paint = look(thing, tint)
            _blend(canvas, scale, thing.box, outer, lambda px, py: INK)
            _blend(canvas, scale, thing.box, inner, paint)
        elif thing.kind == "plate" and thing.glyph >= 0:
            varied = split == "train"
            ink = _digit(rng, split, thing.glyph, varied)
            _draw_bitmap(canvas, scale, thing, ink, _slant(rng, varied))
        else:
            ink = word_bitmap(thing.word or str(thing.digit)).astype(np.float64)
            _draw_bitmap(canvas, scale, thing, ink, _UPRIGHT)
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)


def look(thing: Thing, tint: npt.NDArray[np.int64]) -> tuple[Field, Field, Field]:
    """What an object looks like at points in its own units.

    Signed distance to its edge, to the edge of what its outline leaves, and the colour in there.
    """
    radius = thing.width / 2
    outline = max(1.5, 0.07 * thing.width)
    fill = np.clip(np.array(COLOURS[thing.colour]) + tint, 0, 255).astype(np.float64)
    period = thing.width / 3.5

    def outer(px: Doubles, py: Doubles) -> Doubles:
        return SHAPE_FIELDS[thing.shape]((px - thing.x) / radius, (py - thing.y) / radius) * radius

    def inner(px: Doubles, py: Doubles) -> Doubles:
        return outer(px, py) + outline

    def paint(px: Doubles, py: Doubles) -> Doubles:
        if not thing.striped:
            return fill
        phase = (py - thing.y) / period
        dark = (phase - np.floor(phase) >= 0.5)[..., None]
        return np.where(dark, fill * _STRIPE_SHADE, fill)

    return outer, inner, paint


def _background(scene: Scene, rng: np.random.RandomState, pixels: int, side: int) -> Doubles:
    base = rng.randint(90, 171) + rng.randint(-14, 15, 3)
    canvas = np.empty((pixels, pixels, 3))
    canvas[:] = base
    if scene.background == "noisy":
        grains = side // _GRAIN
        grain = rng.randint(-100, 101, (grains, grains, 1)) / 100.0 * rng.randint(8, 26)
        at = np.arange(pixels) * grains // pixels
        canvas += grain[at][:, at]
    elif scene.background == "cluttered":
        for _ in range(rng.randint(8, 17) * (side // SIDE) ** 2):
            _stroke(canvas, side, rng, base)
    return canvas


def _checker(canvas: Doubles) -> None:
    """Every other square of a board lighter."""
    squares = np.arange(len(canvas)) * BOARD // len(canvas)
    canvas[(squares[:, None] + squares) % 2 == 1] += 26


def _lay(canvas: Doubles, scale: float, ground: Ground, rng: np.random.RandomState) -> None:
    """The ground of a ninth of the picture."""
    base = {"dark": 60, "bright": 150}[ground.light] + rng.randint(41) + rng.randint(-6, 7, 3)
    grains = SIDE // 3 // _GRAIN
    noise = rng.randint(-100, 101, (grains, grains)) / 100.0
    at = (np.arange(len(canvas)) + 0.5) / scale
    left, top, right, bottom = ground.box
    columns, rows = ((at >= low) & (at < high) for low, high in ((left, right), (top, bottom)))
    x, y = at[columns] - left, at[rows] - top
    shade = np.zeros((len(y), len(x)))
    if ground.texture == "noisy":
        # No grain ends outside, though rounding may put a pixel's centre there.
        column, row = (np.minimum(part / _GRAIN, grains - 1).astype(int) for part in (x, y))
        shade = noise[row][:, column]
    elif ground.texture == "lined":
        shade[:] = np.where(y // (2 * _GRAIN) % 2 == 0, 1.0, -1.0)[:, None]
    canvas[np.ix_(rows, columns)] = base + ground.contrast * shade[..., None]


def _stroke(
    canvas: Doubles, side: int, rng: np.random.RandomState, base: npt.NDArray[np.int64]
) -> None:
    """A faint line, no wider than an outline: nothing that a question is about."""
    x, y = rng.randint(0, side, 2)
    dx, dy = rng.randint(-70, 71, 2)
    width = 1.0 + rng.randint(3)
    colour = np.clip(base + rng.randint(-45, 46, 3), 40, 215).astype(np.float64)
    length = float(max(1, dx * dx + dy * dy))

    def distance(px: Doubles, py: Doubles) -> Doubles:
        along = np.clip(((px - x) * dx + (py - y) * dy) / length, 0.0, 1.0)
        away: Doubles = np.sqrt((px - x - along * dx) ** 2 + (py - y - along * dy) ** 2)
        return away - width

    reach = width + 1
    nearest, farthest = (min(x, x + dx), min(y, y + dy)), (max(x, x + dx), max(y, y + dy))
    box = (*(value - reach for value in nearest), *(value + reach for value in farthest))
    _blend(canvas, canvas.shape[0] / side, box, distance, lambda px, py: colour)


_UPRIGHT = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


def _digit(rng: np.random.RandomState, split: Split, glyph: int, varied: bool) -> Doubles:
    """Ink of a handwritten digit [8,8].

    Varied in training, where 1,259 digits have to stand for all handwriting: blended with another
    of the same value.
    """
    images, labels = digit_glyphs(split)
    ink: Doubles = images[glyph] / 16.0
    if varied:
        alike = np.flatnonzero(labels == labels[glyph])
        other, share = alike[rng.randint(len(alike))], rng.randint(51) / 100.0
        ink += (images[other] / 16.0 - ink) * share
    return ink


def _slant(rng: np.random.RandomState, varied: bool) -> Doubles:
    """How a digit lies on its plate: [2,3], from the plate's coordinates to the bitmap's."""
    lies = 1.12 * _UPRIGHT
    if varied:
        lies += rng.randint(-100, 101, (2, 3)) / 100.0 * [[0.14, 0.2, 0.06], [0.1, 0.14, 0.06]]
    return lies


def _draw_bitmap(canvas: Doubles, scale: float, thing: Thing, ink: Doubles, lies: Doubles) -> None:
    """A light rectangle with a bitmap on it, enlarged between its pixels' centres."""
    half_width, half_height = thing.width / 2, thing.height / 2

    def outer(px: Doubles, py: Doubles) -> Doubles:
        return np.maximum(abs(px - thing.x) - half_width, abs(py - thing.y) - half_height)

    def paint(px: Doubles, py: Doubles) -> Doubles:
        rows, columns = ink.shape
        x, y = (px - thing.x) / thing.width, (py - thing.y) / thing.height
        u = (lies[0, 0] * x + lies[0, 1] * y + lies[0, 2] + 0.5) * columns - 0.5
        v = (lies[1, 0] * x + lies[1, 1] * y + lies[1, 2] + 0.5) * rows - 0.5
        strength = between(ink, v, u)[..., None]
        return PAPER * (1 - strength) + INK * strength

    _blend(canvas, scale, thing.box, outer, paint)


def between(values: Doubles, v: Doubles, u: Doubles) -> Doubles:
    """Bilinear reading of values [r,c] at rows v and columns u; nothing outside."""
    padded = np.pad(values, 2)
    v, u = np.clip(v, -1.5, values.shape[0] + 0.5) + 2, np.clip(u, -1.5, values.shape[1] + 0.5) + 2
    row, column = np.floor(v).astype(np.int64), np.floor(u).astype(np.int64)
    below, beside = v - row, u - column
    upper = padded[row, column] * (1 - beside) + padded[row, column + 1] * beside
    lower = padded[row + 1, column] * (1 - beside) + padded[row + 1, column + 1] * beside
    return upper * (1 - below) + lower * below


def _blend(
    canvas: Doubles, scale: float, box: tuple[float, ...], distance: Field, paint: Field
) -> None:
    """Paint where `distance` (units, negative inside) says so, one pixel soft at the edge."""
    pixels = canvas.shape[0]
    left, top = (max(0, int(edge * scale) - 1) for edge in box[:2])
    right, bottom = (min(pixels, int(edge * scale) + 2) for edge in box[2:])
    if left >= right or top >= bottom:
        return
    px = ((np.arange(left, right) + 0.5) / scale)[None, :]
    py = ((np.arange(top, bottom) + 0.5) / scale)[:, None]
    px, py = np.broadcast_arrays(px, py)
    cover = np.clip(0.5 - distance(px, py) * scale, 0.0, 1.0)[..., None]
    part = canvas[top:bottom, left:right]
    part += (paint(px, py) - part) * cover


def _circle(x: Doubles, y: Doubles) -> Doubles:
    return np.sqrt(x * x + y * y) - 1.0


def _square(x: Doubles, y: Doubles) -> Doubles:
    return np.maximum(abs(x), abs(y)) - 0.88


def _triangle(x: Doubles, y: Doubles) -> Doubles:
    return np.maximum(y - 0.8, abs(x) * 0.8742 - y * 0.4856 - 0.4856)


def _star(x: Doubles, y: Doubles) -> Doubles:
    """Five points: where at most one of a pentagon's five edges is crossed, tips cut round."""
    edges = np.stack([x * nx + y * ny - 0.37 for nx, ny in _PENTAGON])
    pentagram: Doubles = np.partition(edges, 3, axis=0)[3]
    return np.maximum(pentagram, _circle(x, y))


def _cross(x: Doubles, y: Doubles) -> Doubles:
    x, y = abs(x), abs(y)
    return np.minimum(np.maximum(x - 1.0, y - 0.36), np.maximum(x - 0.36, y - 1.0))


def _ring(x: Doubles, y: Doubles) -> Doubles:
    return abs(np.sqrt(x * x + y * y) - 0.7) - 0.3


# Normals of a pentagon's edges; one edge is above, so that the star stands on two points.
_PENTAGON = (
    (0.0, -1.0),
    (0.9510565, -0.3090170),
    (0.5877853, 0.8090170),
    (-0.5877853, 0.8090170),
    (-0.9510565, -0.3090170),
)
SHAPE_FIELDS: dict[str, Field] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "ring": _ring,
}
"""Signed distance to each shape's edge on [-1,1] x [-1,1], y downwards, in radii."""
