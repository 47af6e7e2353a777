"""What a bench measures; apart from it because `--help` has no need of numpy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tightrope.checks import check_whole
from tightrope.configs import setting
from tightrope.errors import InputError
from tightrope.point import OperatingPoint


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchConfig:
    """What is measured, and how often. Raises InputError for what cannot be."""

    prompt_tokens: tuple[int, ...] = setting((512,), "Length of a prompt to read, one test each.")
    generate_tokens: int = setting(128, "Tokens to generate; 0 leaves the test out.")
    repetitions: int = setting(5, "Measured runs of each test.")
    points: tuple[OperatingPoint | None, ...] = (None,)
    """Operating points, one set of tests each; those that select visual tokens need an image."""
    image: Path | None = setting(None, "Adds the way from this image to the first token.")
    seed: int = 0
    """Seed of the prompts' tokens."""

    def __post_init__(self) -> None:
        for num_tokens in self.prompt_tokens:
            check_whole("prompt_tokens", num_tokens, least=1)
        if self.generate_tokens != 0:
            unit = "0 for none, or a whole number"
            check_whole("generate_tokens", self.generate_tokens, least=2, unit=unit)
        check_whole("repetitions", self.repetitions, least=1)
        if self.image is None and any(point and point.selector for point in self.points):
            raise InputError("a selector is named but no image; accepted: a selector with --image")
