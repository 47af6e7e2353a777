"""Triton compiles what the package ships, without a GPU, and what it does not."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

triton = pytest.importorskip("triton", reason="needs the extra [kernels]")

from tightrope.errors import BackendError, InputError  # noqa: E402
from tightrope.plugins.kernels.builder import build  # noqa: E402
from tightrope.plugins.kernels.launch import (  # noqa: E402
    BOARDS,
    COMPILED,
    PTX_VERSIONS,
    load_launch,
)
from tightrope.plugins.kernels.source import find, sources  # noqa: E402
from tightrope.plugins.ops import ops  # noqa: E402

SHIPPED = ("commit", "commit_int8", "likeliest")


@pytest.mark.parametrize("sm", BOARDS)
def test_what_is_shipped_is_what_the_source_compiles_to(
    sm: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    for name in SHIPPED:
        shipped, _ = load_launch(name, sm)
        if shipped.compiler != f"triton {triton.__version__}":
            pytest.skip(f"{shipped.compiler} compiled what is shipped")
        list(build([name], [sm], tmp_path))
        made, theirs = (folder / f"sm_{sm}" / f"{name}.ptx" for folder in (tmp_path, COMPILED))
        assert made.read_bytes() == theirs.read_bytes(), made.name
        compiled, _ = load_launch(name, sm, tmp_path)
        # NVIDIA's assembler does not make the same cubin of one PTX every time.
        assert replace(compiled, cubin_sha256="") == replace(shipped, cubin_sha256="")


@pytest.mark.parametrize(("sm", "target"), [(87, "sm_87"), (110, "sm_110a")])
def test_ptx_is_no_newer_than_the_drivers_of_the_board(sm: int, target: str) -> None:
    version = PTX_VERSIONS[sm]
    for name in SHIPPED:
        text = (COMPILED / f"sm_{sm}" / f"{name}.ptx").read_text()
        assert f".version {version // 10}.{version % 10}\n" in text
        assert re.search(r"\.target (\w+)", text)[1] == target  # type: ignore[index]
        assert "/tmp" not in text and ".py" not in text


def test_a_card_has_kernels_too(tmp_path: Path) -> None:
    cards = sorted(set(PTX_VERSIONS) - set(BOARDS))
    assert [kernel.launch.sm for _, kernel in build(["commit"], cards, tmp_path)] == cards
    for sm in cards:
        load_launch("commit", sm, tmp_path)


def test_what_no_kernel_is_called_and_sizes_that_none_takes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no kernel 'other'; known: commit, .*_step_d\{D\}"):
        list(build(["commit", "other"], [87], tmp_path))
    with pytest.raises(
        InputError, match=r"slot_attention_step_d24 is none: .* takes D of 16, 32, .*, 256"
    ):
        find("slot_attention_step_d24")
    assert not list(tmp_path.iterdir())  # nothing is compiled before all are found


def test_what_does_not_compile_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PTX_VERSIONS, 13, 85)
    with pytest.raises(BackendError, match="commit does not compile for sm_13: "):
        list(build(["commit"], [13], tmp_path))


def test_each_source_has_a_name_of_its_own_and_says_what_its_function_takes() -> None:
    every = sources()
    assert len({source.name for source in every}) == len(every)
    for source in every:
        told = [*source.signature, *source.constants, *source.sizes]
        assert sorted(told) == sorted(source.function.arg_names), source.name


def test_kernels_take_what_their_op_says_they_take() -> None:
    heads = ops()["SlotAttention"]
    (limit,) = (limit for limit in heads.limits if limit.size == "D")
    for width in (limit.least, limit.most):
        for kernel in heads.kernels(heads.schema.inputs, {"D": width}):
            assert set(find(kernel)[0].sizes.values()) <= {
                range(limit.least, limit.most + 1, limit.multiple)
            }
