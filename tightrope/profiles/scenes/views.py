"""Several views of flat objects before a wall, with exact depth and poses.

Lengths are whole millimetres, x to the right, y down, z into the picture, as a camera sees them
that looks straight ahead. Objects are billboards across z, each at a depth of its own; cameras
stand beside each other and turn left or right. Rotations come from Cayley's rational form, so that
no sine is taken and a scene has the same pixels and depths everywhere. A pixel shows the one point
that its centre's ray hits: colours never mix at edges, and depth is that of the colour.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tightrope.arrays import Doubles, Indices, Pixels
from tightrope.profiles.scenes.draw import INK, between, look
from tightrope.profiles.scenes.scene import SIDE, Thing
from tightrope.profiles.scenes.words import COLOURS, SHAPES

FEWEST_VIEWS, MOST_VIEWS = 2, 4
FEWEST_OBJECTS, MOST_OBJECTS = 3, 6
MILLIMETRES = 1000
"""In a metre: poses are in metres, depth images in millimetres."""
WALL = -1
"""The owner of pixels that show no object."""
CLEAR_SHARE = 0.6
"""Of an object's area that no other thing hides, for it to be seen clearly."""
_NEAREST, _SLOT, _SLOTS = 2200, 600, 7
_WALL_REACH, _WALL_GRAIN = 9000, 250
_YAW_STEPS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """A pinhole; pixel (column, row) has its centre at (column + 0.5, row + 0.5)."""

    x: int
    y: int
    z: int
    turn: float
    """Tangent of half the yaw to the right: the yaw's sine and cosine are rational in it."""
    focal: float
    """In widths of the picture."""

    @property
    def rotation(self) -> tuple[tuple[float, float, float], ...]:
        """Rows of the rotation from camera to world; its columns are the camera's axes."""
        square = self.turn * self.turn
        cosine, sine = (1 - square) / (1 + square), 2 * self.turn / (1 + square)
        return ((cosine, 0.0, sine), (0.0, 1.0, 0.0), (-sine, 0.0, cosine))

    def pose(self) -> list[list[float]]:
        """Camera to world, 4 x 4, in metres."""
        at = [value / MILLIMETRES for value in (self.x, self.y, self.z)]
        rows = [[*row, shift] for row, shift in zip(self.rotation, at, strict=True)]
        return [*rows, [0.0, 0.0, 0.0, 1.0]]

    def intrinsics(self, pixels: int) -> list[list[float]]:
        """Points in the camera to pixels, 3 x 3."""
        focal = self.focal * pixels
        return [[focal, 0.0, pixels / 2], [0.0, focal, pixels / 2], [0.0, 0.0, 1.0]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Billboard:
    """A flat object across z; `thing` holds its centre and width in millimetres."""

    thing: Thing
    z: int
    tint: tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Views:
    """Objects, each of another colour and shape, the wall behind them, and cameras."""

    billboards: tuple[Billboard, ...]
    cameras: tuple[Camera, ...]
    wall_z: int
    wall_seed: int
    clear: tuple[tuple[bool, ...], ...] = ()
    """For each camera, which billboards are wholly in its view and not much hidden."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What one camera sees."""

    rgb: Pixels
    """[pixels, pixels, 3]"""
    depth: npt.NDArray[np.uint16]
    """[pixels, pixels] millimetres along the camera's z, to the nearest."""
    owner: Indices
    """[pixels, pixels]: which billboard a pixel shows, or WALL."""
    areas: tuple[int, ...]
    """Pixels that each billboard would cover if nothing were in front of it."""


def sample_views(rng: np.random.RandomState) -> Views:
    """2 to 4 cameras and 3 to 6 objects, each seen clearly by at least one of them."""
    while True:
        views = _sampled(rng)
        clear = [_clear(views, camera) for camera in views.cameras]
        # Taking an object away only uncovers others, so one pass is enough.
        left = [index for index, seen in enumerate(zip(*clear, strict=True)) if any(seen)]
        if len(left) >= FEWEST_OBJECTS:
            return replace(
                views,
                billboards=tuple(views.billboards[index] for index in left),
                clear=tuple(tuple(seen[index] for index in left) for seen in clear),
            )


def render_view(views: Views, camera: Camera, pixels: int) -> View:
    """Casts a ray through the centre of each pixel; the nearest plane that it meets is seen."""
    centre = (np.arange(pixels) + 0.5 - pixels / 2) / (camera.focal * pixels)
    across, down = np.meshgrid(centre, centre)
    first, _, third = camera.rotation
    # Multiplied out: a matrix product may add in another order on another machine.
    dx, dz = first[0] * across + first[2], third[0] * across + third[2]

    depth = (views.wall_z - camera.z) / dz
    colour = _wall(views, camera.x + depth * dx, camera.y + depth * down)
    owner = np.full((pixels, pixels), WALL)
    areas = []
    for index, board in enumerate(views.billboards):
        away = (board.z - camera.z) / dz
        x, y = camera.x + away * dx, camera.y + away * down
        outer, inner, paint = look(board.thing, np.array(board.tint))
        hit = outer(x, y) <= 0
        areas.append(int(np.count_nonzero(hit)))
        hit &= away < depth
        x, y = x[hit], y[hit]
        colour[hit] = np.where((inner(x, y) <= 0)[:, None], paint(x, y), INK)
        depth[hit] = away[hit]
        owner[hit] = index
    return View(
        rgb=np.clip(np.rint(colour), 0, 255).astype(np.uint8),
        depth=np.rint(depth).astype(np.uint16),
        owner=owner,
        areas=tuple(areas),
    )


def box_of(board: Billboard, camera: Camera) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of an object in a view, in units, beyond the picture's edge too."""
    first, _, third = camera.rotation
    left, top, right, bottom = board.thing.box
    across, down = [], []
    for x in (left - camera.x, right - camera.x):
        z = board.z - camera.z
        # World to camera: the inverse of a rotation is its transpose.
        away = first[2] * x + third[2] * z
        across.append(((first[0] * x + third[0] * z) / away * camera.focal + 0.5) * SIDE)
        down += [((y - camera.y) / away * camera.focal + 0.5) * SIDE for y in (top, bottom)]
    return across[0], min(down), across[1], max(down)


def depth_of(board: Billboard, camera: Camera) -> float:
    """Millimetres along the camera's z to an object's centre."""
    first, _, third = camera.rotation
    return first[2] * (board.thing.x - camera.x) + third[2] * (board.z - camera.z)


def _clear(views: Views, camera: Camera) -> tuple[bool, ...]:
    """Which objects are wholly in a view and not much hidden."""
    view = render_view(views, camera, SIDE // 2)
    clear = []
    for index, (board, area) in enumerate(zip(views.billboards, view.areas, strict=True)):
        box = box_of(board, camera)
        shown = np.count_nonzero(view.owner == index)
        clear.append(min(box) >= 0 and max(box) <= SIDE and bool(shown >= CLEAR_SHARE * area))
    return tuple(clear)


def _wall(views: Views, x: Doubles, y: Doubles) -> Doubles:
    """Soft spots of every colour: each place of the wall looks like no other."""
    rng = np.random.RandomState(views.wall_seed)
    base = rng.randint(100, 161) + rng.randint(-14, 15, 3)
    grains = 2 * _WALL_REACH // _WALL_GRAIN
    spots = rng.randint(-40, 41, (3, grains, grains)).astype(np.float64)
    row, column = ((value + _WALL_REACH) / _WALL_GRAIN - 0.5 for value in (y, x))
    return np.stack([base[at] + between(spots[at], row, column) for at in range(3)], axis=-1)


def _sampled(rng: np.random.RandomState) -> Views:
    count = int(rng.randint(FEWEST_OBJECTS, MOST_OBJECTS + 1))
    kinds = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    picks = [kinds[at] for at in rng.permutation(len(kinds))[:count]]
    slots = rng.permutation(_SLOTS)[:count]
    boards = [
        _billboard(rng, colour, shape, _NEAREST + _SLOT * int(slot))
        for (colour, shape), slot in zip(picks, slots, strict=True)
    ]
    focal = int(rng.randint(56, 73)) / 64
    others = int(rng.randint(FEWEST_VIEWS - 1, MOST_VIEWS))
    cameras = [_camera(rng, focal, reach) for reach in (300, *[1500] * others)]
    return Views(
        billboards=tuple(boards),
        cameras=tuple(cameras),
        wall_z=_NEAREST + _SLOT * _SLOTS + int(rng.randint(300, 1101)),
        wall_seed=int(rng.randint(2**31 - 1)),
    )


def _billboard(rng: np.random.RandomState, colour: str, shape: str, z: int) -> Billboard:
    """Something that covers 9 to 22 % of a picture's width at any depth: size tells no depth."""
    z += int(rng.randint(200))
    width = z * int(rng.randint(90, 221)) // 1000
    reach = z * 42 // 100
    thing = Thing(
        kind="object",
        cell=0,
        x=int(rng.randint(-reach, reach + 1)),
        y=int(rng.randint(-reach, reach + 1)),
        width=width,
        height=width,
        shape=shape,
        colour=colour,
        striped=bool(rng.random_sample() < 0.3),
    )
    red, green, blue = (int(value) for value in rng.randint(-10, 11, 3))
    return Billboard(thing=thing, z=z, tint=(red, green, blue))


def _camera(rng: np.random.RandomState, focal: float, reach: int) -> Camera:
    """Somewhere within `reach` of the middle, turned roughly towards the middle of the objects."""
    x, y, z = (int(rng.randint(-part, part + 1)) for part in (reach, reach // 4, reach // 4))
    middle = _NEAREST + _SLOT * _SLOTS // 2
    # The tangent of half an angle is about half of its tangent, for the small ones here.
    steps = -x * _YAW_STEPS // (2 * (middle - z)) + int(rng.randint(-8, 9))
    return Camera(x=x, y=y, z=z, turn=steps / _YAW_STEPS, focal=focal)
