"""Tokens drawn at random from the request's seed: the floor of every comparison."""

from tightrope.export.selectors.selector import Selector
from tightrope.plugins.baselines import random

RANDOM = Selector(
    name="random",
    paper="baseline: drawn without replacement, seeded",
    acts="baseline",
    default_keep="25%",
    indices=random,
)
