"""The board's memory, power, heat and what holds it back, as Prometheus asks for them.

Read when they are asked for; nothing of it depends on what anybody asked or was answered.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tightrope.jetson.probe import ROOT, read_machine
from tightrope.jetson.sensors import Look, look

if TYPE_CHECKING:
    from tightrope.jetson.telemetry import Telemetry


class BoardFigures(Collector):
    """Gauges and counters of the machine that answers."""

    def __init__(self, telemetry: Telemetry | None, root: Path = ROOT) -> None:
        """telemetry: None where there are no sensors; then memory alone is told."""
        self._telemetry, self._root = telemetry, root

    def collect(self) -> Iterator[Metric]:
        """All of them, as they are now."""
        yield from self._memory()
        if self._telemetry is not None:
            self._telemetry.wake()
            yield from _sensors(look(self._telemetry.sensors))
            yield from self._counted(self._telemetry)

    def _memory(self) -> Iterator[Metric]:
        machine = read_machine(self._root)
        values = {
            "total": machine.memory_bytes,
            "available": machine.memory_available_bytes,
            "cma_total": machine.cma_bytes,
            "cma_free": machine.cma_free_bytes,
            "swap_total": machine.swap_bytes,
            "swap_free": machine.swap_free_bytes,
            "largest_free_piece": machine.largest_free_bytes,
            "disk_free": machine.disk_free_bytes,
        }
        family = GaugeMetricFamily(
            "tightrope_board_memory_bytes", "Memory of the machine.", labels=["kind"]
        )
        for kind, value in values.items():
            if value is not None:
                family.add_metric([kind], value)
        yield family

    def _counted(self, telemetry: Telemetry) -> Iterator[Metric]:
        record = telemetry.record
        throttled = CounterMetricFamily(
            "tightrope_board_throttle_events", "How often something began to hold it back."
        )
        throttled.add_metric([], record.throttles)
        over = CounterMetricFamily(
            "tightrope_board_over_current_events", "Over-currents since the server began to look."
        )
        over.add_metric([], record.over_currents)
        yield throttled
        yield over
        joules = record.joules
        if joules is not None:
            energy = CounterMetricFamily(
                "tightrope_board_energy_joules",
                "Drawn while the server looked: ten minutes behind each request, always if it is "
                "asked for its figures more often.",
                labels=["source"],
            )
            energy.add_metric([record.source or ""], joules)
            yield energy


def _sensors(now: Look) -> Iterator[Metric]:
    power = GaugeMetricFamily("tightrope_board_power_watts", "Drawn now.", labels=["rail"])
    if now.watts is not None:
        power.add_metric(["total"], now.watts)
    for rail, watts in now.rails.items():
        if watts is not None:
            power.add_metric([rail], watts)
    heat = GaugeMetricFamily("tightrope_board_temperature_celsius", "Now.", labels=["zone"])
    for zone, degrees in now.temperatures.items():
        if degrees is not None:
            heat.add_metric([zone], degrees)
    held = GaugeMetricFamily(
        "tightrope_board_throttled", "1 as long as something holds the board back."
    )
    held.add_metric([], float(bool(now.throttled)))
    by = GaugeMetricFamily("tightrope_board_throttled_by", "What holds it back.", labels=["device"])
    for device in now.throttled:
        by.add_metric([device], 1.0)
    yield from (power, heat, held, by)
