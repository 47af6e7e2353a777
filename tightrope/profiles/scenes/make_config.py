"""What `task make` draws; apart from it because `--help` has no need of numpy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tightrope.checks import check_one_of, check_whole
from tightrope.configs import setting
from tightrope.errors import InputError
from tightrope.profiles.scenes.scene import Split

if TYPE_CHECKING:
    from tightrope.profiles.scenes.kinds import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeConfig:
    """What is drawn. Raises InputError for a value that its kind does not have."""

    kind: str = setting(
        "scenes",
        "mix, or scenes, crowded, fine, background, several, board, tiled, clips, views.",
    )
    split: Split = setting("test", "train, dev or test: they share no digit.")
    seed: int = setting(0, "Another seed, other scenes.")
    images: int = setting(100, "Scenes, clips or sets of views.")
    pixels: int | None = setting(None, "Side of a picture: 336, 224, 168; tiled: 672, 1008.")
    """The kind's first one if None."""
    level: str | int | None = setting(
        None, "easy, medium, hard; or how many, how small or how faint, as the kind counts."
    )
    """None: a tenth easy, a fifth medium, the rest hard; where it is a number, the usual one."""
    types: tuple[str, ...] | None = setting(None, "Only questions of this type.")
    shares: Mapping[str, int] | None = setting(None, "Of a kind in a mix: crowded=40.")
    """In percent; the usual ones if None."""

    def __post_init__(self) -> None:
        from tightrope.profiles.scenes.sample import scene_rng

        kind = self._kind()
        scene_rng(self.split, self.seed, 0)
        check_whole("images", self.images, least=1)
        if self.pixels is not None:
            check_one_of(f"pixels of {self.kind}", self.pixels, kind.pixels)
        if self.level is not None:
            kind.levels.check(self.kind, self.level)
        if self.types is not None:
            if not self.types:
                raise InputError("types is empty; accepted: one or more, or None for every type")
            for name in self.types:
                check_one_of(f"type of {self.kind}", name, kind.types)
        if self.shares is not None:
            self._check_shares(self.shares)

    @property
    def shares_of_mix(self) -> Mapping[str, int]:
        """In percent; empty for a single kind."""
        from tightrope.profiles.scenes.mix import SHARES

        if self.kind != "mix":
            return {}
        return SHARES if self.shares is None else self.shares

    @property
    def side(self) -> int:
        """Of a picture, in pixels."""
        return self._kind().pixels[0] if self.pixels is None else self.pixels

    def _check_shares(self, shares: Mapping[str, int]) -> None:
        from tightrope.profiles.scenes.kinds import KINDS
        from tightrope.profiles.scenes.mix import check_shares

        if self.kind != "mix":
            raise InputError(f"shares were given for {self.kind}; accepted: for a mix alone")
        check_shares(shares, [name for name in KINDS if name != self.kind])

    def _kind(self) -> Kind:
        # Imported here: what draws needs numpy, and a command that is asked for help draws nothing.
        from tightrope.profiles.scenes.kinds import KINDS

        check_one_of("kind", self.kind, KINDS)
        return KINDS[self.kind]
