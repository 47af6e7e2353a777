"""`tightrope kernels build`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="needs the extra [kernels]")


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    code = "import sys; from tightrope.cli import main; sys.argv[0] = 'tightrope'; main()"
    command = [sys.executable, "-c", code, "kernels", "build", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_named_kernels_are_written_where_they_are_wanted(tmp_path: Path) -> None:
    made = run("--kernel", "commit", "--sm", "87", "--sm", "89", "-o", tmp_path, "--json")
    assert made.returncode == 0, made.stderr
    told = json.loads(made.stdout)
    assert [(each["kernel"], each["sm"]) for each in told["kernels"]] == [
        ("commit", 87),
        ("commit", 89),
    ]
    for sm in (87, 89):
        names = {file.name for file in (tmp_path / f"sm_{sm}").iterdir()}
        assert names == {"commit.json", "commit.cubin", "commit.ptx"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--kernel", "commit", "--sm", "61", "-o", "x"), "--sm is 61; accepted: 80, 86, 87"),
        (("--kernel", "commit"), "--output is not given"),
        (("-o", "x"), "nothing to compile"),
        (("--kernel", "other", "-o", "x"), "there is no kernel 'other'; known: commit"),
        (("--kernel", "slot_attention_mass_d24", "-o", "x"), "takes D of 16, 32"),
    ],
)
def test_what_cannot_be_compiled_is_said_before_anything_is(
    arguments: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = run(*arguments)
    assert made.returncode == 2 and said in made.stderr
    assert not list(tmp_path.iterdir())
