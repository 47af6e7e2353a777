"""The peak of this process's memory, and systems that do not tell it."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path

import numpy as np
import pytest

from tightrope.profiles.peak_memory import peak_memory_bytes, reset_peak_memory

MIB = 1 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells")
def test_what_was_held_and_let_go_is_seen_until_the_next_reset() -> None:
    if not reset_peak_memory():
        pytest.skip("the system does not let its peak be set back")
    before = peak_memory_bytes()
    # Mapped anew: of a heap that was larger once, pieces would be in memory already.
    with mmap.mmap(-1, 64 * MIB) as held:
        np.frombuffer(held, np.uint8)[::4096].sum()
        held.write(bytes(64 * MIB))
    peak = peak_memory_bytes()
    assert before is not None and peak is not None
    assert peak - before > 60 * MIB
    assert reset_peak_memory()
    after = peak_memory_bytes()
    assert after is not None and after < peak - 30 * MIB


@pytest.mark.parametrize("text", ["", "VmHWM:\n", "VmHWM: much kB\n", "VmRSS: 10 kB\n"])
def test_a_system_that_does_not_say_is_believed(tmp_path: Path, text: str) -> None:
    assert peak_memory_bytes(tmp_path) is None
    assert not reset_peak_memory(tmp_path / "missing")
    (tmp_path / "status").write_text(text, encoding="utf-8")
    assert peak_memory_bytes(tmp_path) is None
