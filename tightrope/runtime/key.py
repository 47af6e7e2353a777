"""What a latency that is measured or looked up here and now holds for."""

from __future__ import annotations

from tightrope.bundle import Bundle
from tightrope.jetson.place import board_and_mode
from tightrope.latency_file import LatencyKey
from tightrope.runtime.backends.backend import Backend


def latency_key(bundle: Bundle, backend: Backend) -> LatencyKey:
    """The key of the bundle on the backend, on this machine as it is set up."""
    board, power_mode = board_and_mode()
    return LatencyKey(
        bundle=bundle.digest,
        board=board,
        power_mode=power_mode,
        backend=backend.name,
        threads=backend.threads,
    )
