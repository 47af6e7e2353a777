"""The words of the scenes: what things are called, and where they are."""

from __future__ import annotations

COLOURS = {
    "red": (214, 40, 40),
    "green": (44, 160, 60),
    "blue": (40, 80, 210),
    "yellow": (245, 215, 40),
    "purple": (140, 60, 170),
    "orange": (245, 135, 30),
    "cyan": (50, 200, 215),
    "white": (245, 245, 245),
}
SHAPES = {
    "circle": "circles",
    "square": "squares",
    "triangle": "triangles",
    "star": "stars",
    "cross": "crosses",
    "ring": "rings",
}
"""Each shape with its plural."""

SIGN_WORDS = (
    *("cat", "dog", "sun", "box", "key", "map", "pen", "cup", "bus", "hat"),
    *("jam", "leg", "nut", "owl", "pig", "ram", "web", "fox", "gum", "ink"),
)
BOARD = 4
"""Squares along a side of a board."""
TEXTURES = ("plain", "noisy", "lined")
LIGHTS = ("dark", "bright")
ROWS = ("top", "middle", "bottom")
COLUMNS = ("left", "centre", "right")


def place(cell: int) -> str:
    """The name of a cell of the 3 x 3 arrangement, counted in reading order from 0."""
    return f"{ROWS[cell // 3]} {COLUMNS[cell % 3]}"


def square(at: int) -> str:
    """The name of a square of a board, counted in reading order from 0: b 3."""
    return f"{'abcd'[at % BOARD]} {at // BOARD + 1}"


def article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"
