"""What is in a picture: frozen values, before any pixel is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tightrope.profiles.scenes.words import BOARD, place, square

Kind = Literal["object", "plate", "sign"]
Level = Literal["easy", "medium", "hard"]
Background = Literal["plain", "noisy", "cluttered"]
Split = Literal["train", "dev", "test"]

SIDE = 336
"""Side of a scene in its own units, which are pixels when it is drawn at 336."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """One thing in a scene: an object, a plate with a digit, or a sign with a word."""

    kind: Kind
    cell: int
    """Its place in the 3 x 3 arrangement, in reading order."""
    x: int
    y: int
    """Centre, in units."""
    width: int
    height: int
    shape: str = ""
    colour: str = ""
    large: bool = False
    striped: bool = False
    digit: int = -1
    glyph: int = -1
    """Which handwritten digit of the collection; a printed one if negative."""
    word: str = ""

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom in units."""
        half_width, half_height = self.width / 2, self.height / 2
        return (
            self.x - half_width,
            self.y - half_height,
            self.x + half_width,
            self.y + half_height,
        )

    @property
    def name(self) -> str:
        """What it is called: red star, digit 7, word owl."""
        if self.kind == "plate":
            return f"digit {self.digit}"
        if self.kind == "sign":
            return f"word {self.word}"
        return f"{self.colour} {self.shape}"

    @property
    def place(self) -> str:
        return place(self.cell)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What lies behind the things of a ninth of a picture."""

    cell: int
    texture: str
    light: str
    contrast: int
    """Of the texture, in grey levels from its mean."""

    @property
    def box(self) -> tuple[float, float, float, float]:
        row, column = divmod(self.cell, 3)
        edge = SIDE / 3
        return column * edge, row * edge, (column + 1) * edge, (row + 1) * edge


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A picture, described: things in reading order on a background."""

    things: tuple[Thing, ...]
    level: Level
    background: Background
    pixel_seed: int
    """Draws what the description leaves open: the background and small shifts of colour."""
    grounds: tuple[Ground, ...] = ()
    """Of every ninth, instead of one background for all."""
    board: bool = False
    """Whether it shows a board, on whose squares things have their places."""

    @property
    def boxes(self) -> tuple[tuple[float, float, float, float], ...]:
        """Of the things, then of the grounds: what questions are about."""
        things, grounds = (thing.box for thing in self.things), (g.box for g in self.grounds)
        return (*things, *grounds)

    def place(self, index: int) -> str:
        """Where a thing is: a ninth of the picture, or a square of its board."""
        thing = self.things[index]
        if not self.board:
            return thing.place
        return square(thing.y * BOARD // SIDE * BOARD + thing.x * BOARD // SIDE)

    @property
    def objects(self) -> tuple[Thing, ...]:
        return tuple(thing for thing in self.things if thing.kind == "object")
