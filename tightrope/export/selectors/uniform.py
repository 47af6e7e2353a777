"""Evenly spaced tokens: what any method has to beat."""

from tightrope.export.selectors.selector import Selector
from tightrope.plugins.baselines import uniform

UNIFORM = Selector(
    name="uniform",
    paper="baseline: evenly spaced in raster order",
    acts="baseline",
    default_keep="25%",
    indices=uniform,
)
