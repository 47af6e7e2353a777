"""What a request takes on one machine: a model of its stages, fitted to a few measured requests.

Every stage is a sum of things to do times what one of them takes, none below zero: more of anything
never takes less, and beyond what was measured the model goes on in a straight line. A prediction's
spread is that of all measured requests around what was predicted for them.

    images      a + b · megapixels + c · megabytes of the source, per format; then scaling
    vision      by resolution, per image
    selection   per method: a + b · V² + c · V · K
    prefill     piecewise linear in the tokens of a call, and tokens · slots that they attend to
    decode      a token takes n + m · context

For what another machine may do from its data sheet alone: `tightrope.jetson.roofline`.
"""

from tightrope.latency.model import LatencyModel, check_model
from tightrope.latency.parts import (
    Decoding,
    Hosting,
    Prefilling,
    Preprocessing,
    Selecting,
    Stepping,
    TowerTime,
    Units,
)
from tightrope.latency.prediction import PERCENTS, Estimate, Prediction, Spread, Stages
from tightrope.latency.workload import SCALES, PrefillCall, SourceImage, Workload

__all__ = [
    "PERCENTS",
    "SCALES",
    "Decoding",
    "Estimate",
    "Hosting",
    "LatencyModel",
    "Prediction",
    "PrefillCall",
    "Prefilling",
    "Preprocessing",
    "Selecting",
    "SourceImage",
    "Spread",
    "Stages",
    "Stepping",
    "TowerTime",
    "Units",
    "Workload",
    "check_model",
]
