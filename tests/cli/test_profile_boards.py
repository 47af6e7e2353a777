"""`tightrope profile --scheduler` where Dask is not installed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tightrope.cli import app, report


@pytest.mark.parametrize("command", ["profile", "profile-worker"])
def test_without_dask_the_extra_is_named(
    command: str,
    bundle: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TIGHTROPE_STATE", str(tmp_path))
    for module in [name for name in sys.modules if name.startswith("tightrope.profiles.boards.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "distributed", None)
    more = ["--latency-only"] if command == "profile" else []
    where = ["--scheduler", "tls://127.0.0.1:9", "--threads", "1", *more]
    result = CliRunner().invoke(app, [command, str(bundle("llama")), *where])
    assert isinstance(result.exception, ModuleNotFoundError)
    assert report(result.exception) == 1
    told = capsys.readouterr().err
    assert "needs the package distributed" in told and "[boards]" in told
