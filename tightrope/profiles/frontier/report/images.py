"""Vega-Lite through vl-convert: the program for the page, and images without a browser.

vl-convert (extra [profile]) carries Vega, Vega-Lite, Vega-Embed and fonts of its own: nothing is
fetched.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from tightrope.errors import InputError
from tightrope.profiles.frontier.report.themes import LIGHT, Spec, themed
from tightrope.state import write_whole

if TYPE_CHECKING:
    from tightrope.profiles.frontier.report.plots import Plot

VEGA_LITE = "6.4"
"""The version that page and images are drawn by."""
WIDTH = 760
"""Pixels of an image's plot."""
SCALE = 2.0
"""Pixels of a PNG for one of these."""


@cache
def vega_bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one program, without their tests or maps."""
    import vl_convert

    program: str = vl_convert.javascript_bundle(
        "window.vegaEmbed = vegaEmbed;", vl_version=VEGA_LITE
    )
    return program


def write_images(plots: Sequence[Plot], folder: Path) -> list[Path]:
    """NAME.svg and NAME.png of each plot, in the light theme.

    Raises InputError for a folder that cannot be made and a disk that takes no more.
    """
    written = []
    for plot in plots:
        for ending, content in _drawn(plot.spec).items():
            file = folder / f"{plot.name}.{ending}"
            try:
                write_whole(file, content)
            except OSError as error:
                raise InputError(
                    f"{file} was not written ({error}); nothing is left of it: make room there, "
                    "or name another folder"
                ) from error
            written.append(file)
    return written


def _drawn(spec: Spec) -> dict[str, str | bytes]:
    """The same plot as text and as pixels."""
    import vl_convert

    fixed = themed({**spec, "width": WIDTH, "background": "@paper"}, LIGHT)
    return {
        "svg": vl_convert.vegalite_to_svg(fixed, vl_version=VEGA_LITE),
        "png": vl_convert.vegalite_to_png(fixed, vl_version=VEGA_LITE, scale=SCALE),
    }
