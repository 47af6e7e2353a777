"""Texts that are no path, wherever a command takes one: a sentence of ours, shortened."""

from __future__ import annotations

from pathlib import Path

import pytest

from tightrope import cli

# No NUL: a command line cannot hold one.
TEXTS = {
    "a long name": "x" * 300,
    "very long": "y" * 5000,
    "deep": "a/" * 3000,
    "a data URL": "data:image/png;base64," + "A" * 6000,
    "nothing": "",
    "a template": "{{ 1/0 }}",
    "a device": "/dev/zero",
}
COMMANDS = (
    "inspect TEXT",
    "run TEXT a",
    "bench TEXT",
    "build TEXT",
    "build TEXT --check",
    "export TEXT -o out",
    "export . -o TEXT",
    "task show TEXT",
    "task show . --sheet TEXT",
    "task score x.bundle TEXT",
    "task score x.bundle . --records TEXT",
    "task import vqav2 TEXT -o out",
    "task import vqav2 x -o TEXT",
)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("text", TEXTS)
def test_a_command_tells_what_is_no_path(
    command: str,
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [TEXTS[text] if word == "TEXT" else word for word in command.split()]
    if "export" in words:
        pytest.importorskip("torch", reason="exporting needs torch")
    monkeypatch.setattr("sys.argv", ["tightrope", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr().err
    assert ended.value.code in (1, 2)
    assert "internal error" not in said and "Traceback" not in said
    assert said and len(said) < 900
    assert not list(tmp_path.iterdir())
