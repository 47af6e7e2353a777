"""Export opens what it wrote: what does not open is told then, and leaves nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="exporting needs torch")

from tightrope.bundle import SELFTEST, Bundle
from tightrope.errors import UnsupportedModel
from tightrope.export import export as exporting
from tightrope.export import parity
from tightrope.export.config import ExportConfig

Find = Callable[[str], Path]
TINY = ExportConfig(precision="fp32", prefill_chunk=32)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("chat_template.jinja", b"{% if %}", "not a valid template"),
        ("graphs/host.decoder.onnx", b"garbage", r"host\.decoder\.onnx is damaged"),
    ],
)
def test_a_bundle_that_does_not_open_is_told_at_export_and_not_left(
    checkpoint: Find,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    file: str,
    content: bytes,
    said: str,
) -> None:
    measure = parity.measure

    def broken(recipe: Any, late: Any, weights: Any, folder: Path, tower: Any) -> Any:
        figures = measure(recipe, late, weights, folder, tower)
        (folder / file).write_bytes(content)
        return figures

    monkeypatch.setattr(parity, "measure", broken)
    with pytest.raises(UnsupportedModel, match=f"does not open or answer .*{said}") as caught:
        exporting.export(checkpoint("llama"), tmp_path / "x.bundle", TINY)
    assert str(tmp_path) not in str(caught.value) and "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_recorded_steps_are_in_the_manifest(bundle: Find) -> None:
    opened = Bundle.open(bundle("llama"), verify=True)
    assert SELFTEST in opened.manifest.files
    arrays = opened.read_arrays(SELFTEST)
    assert opened.manifest.parity is not None
    assert float(arrays["tolerance"]) == pytest.approx(opened.manifest.parity.tolerance)
