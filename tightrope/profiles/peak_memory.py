"""The most memory that this process held, as Linux counts it.

Pages of main memory, its own and those that it shares (VmHWM); what a driver keeps for a GPU apart
from them is not among them.
"""

from __future__ import annotations

from pathlib import Path

PROCESS = Path("/proc/self")
_RESET_PEAK = "5"
"""proc(5): sets the peak back to what is held now."""


def reset_peak_memory(process: Path = PROCESS) -> bool:
    """Begin anew; False where the system does not let us."""
    try:
        (process / "clear_refs").write_text(_RESET_PEAK, encoding="ascii")
    except OSError:
        return False
    return True


def peak_memory_bytes(process: Path = PROCESS) -> int | None:
    """The most that was held since the last reset; None where the system does not say."""
    try:
        lines = (process / "status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, ValueError, IndexError, StopIteration):
        return None
