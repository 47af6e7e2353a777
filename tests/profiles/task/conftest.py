from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

Paint = Callable[..., Path]


@pytest.fixture
def paint() -> Paint:
    """`paint(folder / "a.jpg", "red")`: a small picture, its folder made."""

    def make(file: Path, colour: str = "red") -> Path:
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 16), colour).save(file)
        return file

    return make
