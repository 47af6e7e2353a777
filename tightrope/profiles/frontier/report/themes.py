"""Colours of the plots, by what they say: Okabe and Ito's, which colour-blind people tell apart.

A specification names a colour as "@name"; page, style sheet and images put in those of
their theme.
https://jfly.uni-koeln.de/color/
"""

from __future__ import annotations

import json
import re
from typing import Any

Spec = dict[str, Any]
"""Of Vega-Lite."""
LIGHT = {
    "ink": "#1b1f24",
    "muted": "#57606a",
    "grid": "#e3e7eb",
    "paper": "#ffffff",
    "shade": "#eef4f9",
    "frontier": "#0072b2",
    "dim": "#767f89",
    "knee": "#c04a00",
    "image": "#cc79a7",
    "vision": "#0072b2",
    "select": "#e69f00",
    "prefill": "#009e73",
    "host": "#8c8c8c",
}
DARK = LIGHT | {
    "ink": "#e8ebee",
    "muted": "#aab3bc",
    "grid": "#333a42",
    "paper": "#14181d",
    "shade": "#1f2a35",
    "frontier": "#56b4e9",
    "dim": "#8f99a3",
    "knee": "#f0a05a",
    "vision": "#56b4e9",
}
THEMES = {"light": LIGHT, "dark": DARK}


def variables(theme: dict[str, str]) -> str:
    """The colours for a style sheet, which calls them `var(--name)`."""
    return " ".join(f"--{name}: {colour};" for name, colour in theme.items())


def themed(spec: Spec, theme: dict[str, str]) -> Spec:
    """`spec` with colours in the place of their names."""
    text = re.sub(r'"@(\w+)"', lambda found: json.dumps(theme[found[1]]), json.dumps(spec))
    colours: Spec = json.loads(text)
    return colours
