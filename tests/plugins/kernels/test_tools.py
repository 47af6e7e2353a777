"""What every kernel takes of a board's SM: nothing is spilled, and a block fits."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

triton = pytest.importorskip("triton", reason="needs the extra [kernels]")

from tightrope.plugins.kernels.builder import build  # noqa: E402
from tightrope.plugins.kernels.launch import BOARDS, PTX_VERSIONS  # noqa: E402
from tightrope.plugins.kernels.source import sources  # noqa: E402
from tightrope.plugins.kernels.tools import SMS, resources  # noqa: E402


def names() -> list[str]:
    """Each kernel once, for the largest of its sizes: registers grow with them."""
    sizes = [{size: max(values) for size, values in x.sizes.items()} for x in sources()]
    return [source.name.format_map(each) for source, each in zip(sources(), sizes, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("name", names())
def test_a_kernel_fits_the_boards_and_spills_nothing(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _, kernel in build([name], BOARDS, tmp_path):
        takes, sm = resources(kernel), kernel.launch.sm
        with capsys.disabled():
            print(f"\n{name} sm_{sm}: {takes.registers} registers, occupancy {takes.occupancy:.0%}")
        assert takes.stack_bytes == 0
        assert takes.shared_bytes <= SMS[sm].block_bytes
        assert takes.blocks >= 1


@pytest.mark.parametrize("sm", BOARDS)
def test_the_assembler_of_the_package_takes_the_ptx_of_a_board(sm: int, tmp_path: Path) -> None:
    ((_, kernel),) = build(["commit"], [sm], tmp_path)
    knobs = triton.knobs.nvidia
    assembler = (knobs.ptxas_blackwell if sm >= 100 else knobs.ptxas).path
    target = f"sm_{sm}a" if sm >= 90 else f"sm_{sm}"
    source = tmp_path / f"sm_{sm}" / "commit.ptx"
    command = [assembler, "-v", "--gpu-name", target, str(source), "-o", str(tmp_path / "made")]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "0 bytes spill stores, 0 bytes spill loads" in run.stderr
    assert f"Used {resources(kernel).registers} registers" in run.stderr


def test_every_sm_that_is_compiled_for_has_its_limits() -> None:
    assert set(SMS) == set(PTX_VERSIONS)
