"""Triton compiles what the package ships, without a GPU, byte for byte."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

triton = pytest.importorskip("triton", reason="needs the extra [kernels]")

from tightrope.plugins.kernels.builder import (  # noqa: E402
    KERNELS,
    PTX_VERSIONS,
    compiled,
    sources,
    write,
)
from tightrope.plugins.kernels.launch import COMPILED, load_launch  # noqa: E402


@pytest.mark.parametrize("sm", sorted(PTX_VERSIONS))
def test_what_is_shipped_is_what_the_source_compiles_to(
    sm: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    for name, source in sources():
        shipped, _ = load_launch(name, sm)
        if shipped.compiler != f"triton {triton.__version__}":
            pytest.skip(f"{shipped.compiler} compiled what is shipped")
        write(name, compiled(source, sm), tmp_path)
        for ending in ("json", "ptx", "cubin"):
            made, theirs = (
                folder / f"sm_{sm}" / f"{name}.{ending}" for folder in (tmp_path, COMPILED)
            )
            assert made.read_bytes() == theirs.read_bytes(), made.name


@pytest.mark.parametrize(("sm", "target"), [(87, "sm_87"), (110, "sm_110a")])
def test_ptx_is_no_newer_than_the_drivers_of_the_board(sm: int, target: str) -> None:
    version = PTX_VERSIONS[sm]
    for name in KERNELS:
        text = (COMPILED / f"sm_{sm}" / f"{name}.ptx").read_text()
        assert f".version {version // 10}.{version % 10}\n" in text
        assert re.search(r"\.target (\w+)", text)[1] == target  # type: ignore[index]
        assert "/tmp" not in text and ".py" not in text
