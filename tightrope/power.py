"""What a request draws on one machine: watts of each kind of stage, fitted to a power sensor.

    energy = host watts · host time + read watts · read time + write watts · decode time

Watts are those of the whole board while it works on the request, idle power among them. A stage of
a few milliseconds is seen by no sensor; many of them together are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tightrope.latency import Stages


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerModel:
    """Watts of the board while it does one kind of thing."""

    source: str
    """What measured it: "INA3221 VDD_IN"."""
    idle_w: float
    """While nothing is asked."""
    host_w: float
    """Decoding and scaling images, text, and all else on the host."""
    read_w: float
    """Looking at images, selecting, reading the prompt."""
    write_w: float
    """Writing the answer."""
    error_percent: float
    """Mean error of stretches of time that it was not fitted to."""
    readings: int

    def energy_j(self, stages: Stages) -> float:
        """Joules of a request whose stages take so long."""
        return self.first_j(stages) + self.write_w * stages.decode_ms / 1e3

    def first_j(self, stages: Stages) -> float:
        """Of these, until the first token."""
        host, read = host_and_read_ms(stages)
        return (self.host_w * host + self.read_w * read) / 1e3


def host_and_read_ms(stages: Stages) -> tuple[float, float]:
    """Milliseconds before the first token: on the host, and on what runs the graphs."""
    host = stages.image_decode_ms + stages.preprocess_ms + stages.host_ms
    return host, stages.vision_ms + stages.select_ms + stages.prefill_ms


def check_power(model: PowerModel) -> None:
    """Raises ValueError for figures that no fit gives."""
    watts = (model.idle_w, model.host_w, model.read_w, model.write_w, model.error_percent)
    if not all(math.isfinite(value) and value >= 0 for value in watts) or model.readings < 1:
        raise ValueError("power has numbers below 0, or none")
