"""What a service is made of, checked before anything is written."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from tightrope.checks import check_whole, shown
from tightrope.configs import setting
from tightrope.errors import InputError

HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")
"""Folders of people, which a service does not see, and those of which it has its own."""
_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceConfig:
    """A service; raises InputError for what systemd would refuse or the service could not reach."""

    name: str = setting("tightrope", "Name of the unit, of its user and of its folder in /var/lib.")
    watchdog_s: int = setting(
        60, "Seconds without a sign of life of the engine after which it is started again."
    )
    command: tuple[str, ...] = ()
    """The program that serves, with what stands before the bundles."""
    bundles: tuple[Path, ...] = ()
    options: tuple[str, ...] = ()
    """What stands behind them."""
    credentials: dict[str, Path] = field(default_factory=dict)
    """Options whose file is handed over by systemd, so that its user need not read it."""
    memory_max_bytes: int = 0
    images: Path | None = None
    """Folder that requests may name files of."""
    stop_s: int = 15
    """After which a service that was told to stop is killed."""

    def __post_init__(self) -> None:
        check_name(self.name)
        check_whole("watchdog", self.watchdog_s, least=5, most=3600, unit="whole seconds")
        if not self.bundles:
            raise InputError("bundle is missing; name the folder that `tightrope export` wrote")
        texts = [*self.command, *map(str, self.bundles), *self.options]
        for text in [*texts, *map(str, self.credentials.values())]:
            if any(ord(letter) < 32 or ord(letter) == 127 for letter in text):
                raise InputError(f"{shown(text)} has a control character, which no unit can hold")


def check_name(name: str) -> None:
    """Raises InputError for what is no name of a unit and a user."""
    if not _NAME.fullmatch(name):
        raise InputError(
            f"name is {shown(name)}; accepted: small letters, digits and -, a letter first, at "
            "most 31 of them"
        )


def out_of_reach(config: ServiceConfig) -> list[str]:
    """A sentence for each place that the service would be kept from; links are followed."""
    places = [Path(config.command[0]), *config.bundles, *([config.images] if config.images else [])]
    hidden = ((path, _hiding(path)) for path in places)
    return [
        f"{path} lies in {folder}, which a service does not see; move it, for instance to "
        f"/var/lib/{config.name}/bundles (a bundle) or /opt/tightrope (the program)"
        for path, folder in hidden
        if folder is not None
    ]


def _hiding(path: Path) -> str | None:
    real = Path(os.path.realpath(path))
    return next((folder for folder in HIDDEN if real.is_relative_to(folder)), None)
