"""The state folder: one process measures there at a time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tightrope.errors import InputError
from tightrope.state import held

HOLD = """
import sys
from pathlib import Path
from tightrope.state import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_second_process_is_told_who_measures(tmp_path: Path) -> None:
    bundle = tmp_path / "x.bundle"
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(bundle)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert first.stdout is not None
    assert first.stdout.readline() == "held\n"
    with pytest.raises(InputError, match=f"being measured by process {first.pid}"), held(bundle):
        pass
    first.kill()  # a lock must not outlive who held it
    first.communicate()
    with held(bundle):
        assert (tmp_path / "x.state" / "profile.lock").read_text() == str(os.getpid())
    with held(bundle):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.state").write_text("in the way", encoding="utf-8")
    with (
        pytest.raises(InputError, match=r"x\.state cannot be written .*TIGHTROPE_STATE"),
        held(tmp_path / "x.bundle"),
    ):
        pass
