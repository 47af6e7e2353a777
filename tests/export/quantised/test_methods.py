"""AWQ, GPTQ and compressed-tensors: what was written is read, and what is not known is refused."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="exporting needs torch")

import safetensors.torch  # noqa: E402

from tightrope.errors import UnsupportedModel  # noqa: E402
from tightrope.export.checkpoint import open_checkpoint  # noqa: E402
from tightrope.export.coded import Coded  # noqa: E402
from tightrope.export.config import ExportConfig  # noqa: E402
from tightrope.export.export import export  # noqa: E402
from tightrope.export.quantised import METHODS, find_method  # noqa: E402

Find = Callable[[str], Path]
HERE = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def written(module_of: Callable[[Path], ModuleType]) -> ModuleType:
    """The writers of `quantised_files.py`."""
    return module_of(HERE / "quantised_files.py")


def awq(group_size: int = 32, **changes: Any) -> dict[str, Any]:
    values = {"bits": 4, "group_size": group_size, "zero_point": True, "version": "gemm"}
    return {"quant_method": "awq", **values, **changes}


def gptq(group_size: int = 32, **changes: Any) -> dict[str, Any]:
    values = {"bits": 4, "group_size": group_size, "desc_act": False, "sym": True}
    return {"quant_method": "gptq", **values, **changes}


def compressed(group_size: int = 32, **weights: Any) -> dict[str, Any]:
    values = {
        "num_bits": 4,
        "type": "int",
        "symmetric": True,
        "strategy": "channel" if group_size == -1 else "group",
        "group_size": None if group_size == -1 else group_size,
    }
    group = {"weights": values | weights, "input_activations": None, "output_activations": None}
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": {"group_0": group},
        "ignore": ["lm_head"],
        "kv_cache_scheme": None,
    }


SIZES = (32, 64, 128, -1)
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {}
"""What -> the writer, its choices, and the config."""
for size in SIZES:
    CASES[f"awq {size}"] = ("awq", {"group_size": size}, awq(size))
    for symmetric in (True, False):
        for moved in (False, True) if size != -1 else (False,):
            chosen = {"group_size": size, "symmetric": symmetric, "moved": moved}
            how = f"{size} {'symmetric' if symmetric else 'asymmetric'}{' moved' * moved}"
            CASES[f"gptq {how}"] = ("gptq", chosen, gptq(size, desc_act=moved, sym=symmetric))
            CASES[f"compressed-tensors {how}"] = (
                "compressed_tensors",
                chosen,
                compressed(size, symmetric=symmetric, actorder="group" if moved else None),
            )
CASES["gptq_v2"] = (
    "gptq",
    {"group_size": 64, "symmetric": False, "less": 0},
    gptq(64, sym=False, checkpoint_format="gptq_v2"),
)
for symmetric in (True, False):
    chosen = {"group_size": 64, "bits": 8, "symmetric": symmetric}
    for name, config in (
        ("gptq", gptq(64, bits=8)),
        ("compressed_tensors", compressed(64, num_bits=8, symmetric=symmetric)),
    ):
        CASES[f"{name} 8 bits {symmetric}"] = (name, chosen, config)


def read_case(written: ModuleType, case: str, seed: int = 0) -> tuple[Coded, Any]:
    writer, chosen, config = CASES[case]
    parts, weight = getattr(written, writer)(np.random.default_rng(seed), 256, 48, **chosen)
    _, read = find_method(config)
    return read("w", parts), weight


@pytest.mark.parametrize("case", CASES)
def test_what_is_written_is_read_to_the_bit(written: ModuleType, case: str) -> None:
    read, weight = read_case(written, case)
    got = read.weight()
    if read.shift is None:
        np.testing.assert_array_equal(got, weight.astype(np.float32))
    # A zero of eight bits is added apart, in float32.
    np.testing.assert_allclose(got, weight, rtol=0, atol=2**-23 * 256 * 0.02)
    np.testing.assert_array_equal(got.astype(np.float16), weight.astype(np.float16))


@pytest.mark.parametrize("case", CASES)
def test_codes_are_stored_with_zeros_where_there_are_some(written: ModuleType, case: str) -> None:
    read, _ = read_case(written, case)
    config = CASES[case][2]
    size = CASES[case][1]["group_size"]
    assert read.form.block_size == (128 if size == -1 else size)
    assert read.bits == (8 if "8 bits" in case else 4)
    assert read.form.order == ("moved" in case)
    plain = "asymmetric" not in case and "awq" not in case and "v2" not in case
    if read.bits == 4:
        assert read.form.zero is not plain and not read.form.shift
    assert config["quant_method"] in METHODS


def test_zeros_of_sixteen_are_minima(written: ModuleType) -> None:
    """The format `gptq` stores one less: all bits set mean sixteen, which int4 does not hold."""
    parts, _ = written.gptq(np.random.default_rng(0), 64, 16, 32)
    parts["qzeros"][:] = -1
    read = find_method(gptq(32))[1]("w", parts)
    assert read.form.shift and not read.form.zero
    codes = written.gptq(np.random.default_rng(0), 64, 16, 32)[1].T  # of zeros that are eight
    scales = np.repeat(parts["scales"].astype(np.float64), 32, 0)
    np.testing.assert_allclose(read.weight().T, codes - 8 * scales, atol=1e-6)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "three bits": (gptq(bits=3), "bits 3; read here: 4, 8"),
    "eight bits of AWQ": (awq(bits=8), "bits 8; read here: 4"),
    "another layout of AWQ": (awq(version="gemv"), "version 'gemv'; read here: gemm"),
    "AWQ without zeros": (awq(zero_point=False), "zero_point False"),
    "a format of GPTQ": (gptq(checkpoint_format="marlin"), "checkpoint_format 'marlin'"),
    "Marlin": (gptq(is_marlin_format=True), "is_marlin_format True"),
    "modules that differ": (gptq(dynamic={"+:.*up": {"bits": 8}}), "differs by module"),
    "a group of no size": (awq() | {"group_size": None}, "group_size None"),
    "a small group": (gptq(group_size=8), "group_size 8"),
    "another format": (compressed() | {"format": "int-quantized"}, "format 'int-quantized'"),
    "floats": (compressed(type="float"), "type 'float'"),
    "a strategy": (compressed(strategy="tensor"), "strategy 'tensor'"),
    "sparse weights": (
        compressed() | {"sparsity_config": {"format": "sparse-24"}},
        "sparsity_config",
    ),
    "a quantised cache": (compressed() | {"kv_cache_scheme": {"num_bits": 8}}, "kv_cache_scheme"),
    "no groups": (compressed() | {"config_groups": {}}, "names no weights"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_a_config_says_that_is_not_known_is_refused_by_name(what: str) -> None:
    config, said = WRONG[what]
    with pytest.raises(UnsupportedModel, match=said):
        find_method(config)


def test_quantised_activations_and_groups_that_differ_are_refused() -> None:
    config = compressed()
    config["config_groups"]["group_0"]["input_activations"] = {"num_bits": 8}
    with pytest.raises(UnsupportedModel, match="quantises its input_activations as well"):
        find_method(config)
    config = compressed()
    config["config_groups"]["group_1"] = compressed(num_bits=8)["config_groups"]["group_0"]
    with pytest.raises(UnsupportedModel, match="several groups of them that differ"):
        find_method(config)


def without(part: str) -> Callable[[dict[str, Any]], object]:
    return lambda parts: parts.pop(part)


def put(part: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda parts: parts[part].__setitem__((0, 0), value)


DAMAGED: dict[str, tuple[str, Callable[[dict[str, Any]], object], str]] = {
    "no g_idx": ("gptq 32 symmetric moved", without("g_idx"), "w has no g_idx, though desc_act"),
    "no weight_g_idx": (
        "compressed-tensors 32 symmetric moved",
        without("weight_g_idx"),
        "w has no weight_g_idx, though actorder",
    ),
    "no zero points": (
        "compressed-tensors 32 asymmetric",
        without("weight_zero_point"),
        "w has no weight_zero_point",
    ),
    "a scale of zero": ("awq 32", put("scales", 0), "w has scales that are zero, NaN"),
    "an infinite scale": ("gptq 32 symmetric", put("scales", np.inf), "w has scales that are zero"),
    "a scale that is no number": (
        "compressed-tensors 64 symmetric",
        put("weight_scale", np.nan),
        "w has scales that are zero",
    ),
    "scales of another size": (
        "awq 64",
        lambda parts: parts.update(scales=parts["scales"][:2]),
        r"w\.scales has shape \[2, 48\] instead of \[4, 48\]",
    ),
    "groups of unequal size": (
        "gptq 64 symmetric moved",
        lambda parts: parts["g_idx"].__setitem__(slice(0, 100), 0),
        "w has groups of unequal size",
    ),
    "a group that there is not": (
        "gptq 64 symmetric moved",
        lambda parts: parts["g_idx"].__setitem__(0, 4),
        "w has groups of unequal size",
    ),
    "inputs that fill no group": (
        "gptq 128 symmetric",
        lambda parts: parts.update(qweight=parts["qweight"][:20]),
        "w has 160 inputs, no whole number of groups of 128",
    ),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_parts_that_do_not_fit_together_name_their_matrix(written: ModuleType, what: str) -> None:
    case, damage, said = DAMAGED[what]
    writer, chosen, config = CASES[case]
    parts, _ = getattr(written, writer)(np.random.default_rng(0), 256, 48, **chosen)
    parts = {name: np.array(part) for name, part in parts.items()}
    damage(parts)
    with pytest.raises(UnsupportedModel, match=said):
        find_method(config)[1]("w", parts)


def test_groups_that_no_product_has_are_refused(written: ModuleType) -> None:
    parts, _ = written.gptq(np.random.default_rng(0), 240, 48, 24)
    with pytest.raises(UnsupportedModel, match="w has groups of 24 inputs; products have blocks"):
        find_method(gptq(24))[1]("w", parts)


FOLDERS: dict[str, tuple[str, dict[str, Any], str, dict[str, Any]]] = {
    "awq": ("awq", {"group_size": 32}, "llava", awq(32)),
    "gptq": (
        "gptq",
        {"group_size": 32, "symmetric": False, "moved": True},
        "llama",
        gptq(32, desc_act=True, sym=False),
    ),
    "compressed-tensors": (
        "compressed_tensors",
        {"group_size": 32, "symmetric": False},
        "qwen2",
        compressed(32, symmetric=False),
    ),
}


@pytest.fixture
def folder(
    written: ModuleType, checkpoint: Find, tmp_path: Path
) -> Callable[[str], tuple[Path, dict[str, Any]]]:
    """`folder("awq")`: a checkpoint in codes, and the weights that they mean."""

    def make(what: str) -> tuple[Path, dict[str, Any]]:
        writer, chosen, name, config = FOLDERS[what]
        path = Path(shutil.copytree(checkpoint(name), tmp_path / "checkpoint"))
        write = getattr(written, writer)
        weights = written.replace_matrices(
            path, config, lambda rng, inputs, outputs: write(rng, inputs, outputs, **chosen)
        )
        return path, weights

    return make


@pytest.mark.parametrize("what", FOLDERS)
def test_a_folder_is_read_as_the_model_that_it_means(
    folder: Callable[[str], tuple[Path, dict[str, Any]]], what: str
) -> None:
    path, weights = folder(what)
    opened = open_checkpoint(path)
    late = opened.late_model()
    named, published = late.parameters, late.published
    in_model = {name: entry.read for name, entry in published.items()}
    assert len(in_model) == len(weights), "a name for each, in the model's own spelling"
    unread = {name: weight.astype(np.float32) for name, weight in weights.items()}
    for name, read in in_model.items():
        assert read is not None
        np.testing.assert_array_equal(named[name].numpy(), read().weight())
        tail = ".".join(name.split(".")[-4:])
        (source,) = [other for other in unread if other.endswith(tail)]
        np.testing.assert_array_equal(named[name].numpy(), unread.pop(source))
    assert not unread
    assert opened.end_ids(late.model) == {1}
    assert opened.codes == what.upper()


def test_an_export_keeps_the_codes_the_order_of_inputs_and_the_zeros(
    folder: Callable[[str], tuple[Path, dict[str, Any]]], tmp_path: Path
) -> None:
    path, weights = folder("gptq")
    config = ExportConfig(precision="int4", slots=256, prefill_chunk=32)
    summary = export(path, tmp_path / "m.bundle", config)
    parity = summary.parity
    assert parity is not None and parity.logits <= parity.allowed
    # Only floats are rounded: embeddings, norms and the head.
    assert parity.stored_weights is not None and parity.stored_weights < 2e-3
    how = "int4 by 32 with zero points in the order of activations (GPTQ)"
    attention, mlp = summary.weights["attention"], summary.weights["mlp"]
    assert attention.stored == {how: 12} and mlp.stored == {how: 9}
    assert len(weights) == 21
    assert (attention.logit_error or 0) < 1e-5 and (mlp.logit_error or 0) < 1e-5
    assert summary.weights["head"].stored == {"float16": 1} and summary.notes == ()


def test_a_part_that_is_missing_and_codes_that_are_missing_are_told(
    folder: Callable[[str], tuple[Path, dict[str, Any]]], checkpoint: Find, tmp_path: Path
) -> None:
    path, _ = folder("awq")
    file = path / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    lost = next(name for name in tensors if name.endswith("up_proj.scales"))
    tensors.pop(lost)
    safetensors.torch.save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(UnsupportedModel, match=r"up_proj has no scales"):
        open_checkpoint(path)
    plain = Path(shutil.copytree(checkpoint("llama"), tmp_path / "plain"))
    values = json.loads((plain / "config.json").read_text(encoding="utf-8"))
    (plain / "config.json").write_text(
        json.dumps(values | {"quantization_config": awq()}), encoding="utf-8"
    )
    with pytest.raises(UnsupportedModel, match=r"quantised by awq, but has no tensor \*\.qweight"):
        open_checkpoint(plain)


def test_in_another_precision_the_codes_are_dequantised(
    folder: Callable[[str], tuple[Path, dict[str, Any]]],
) -> None:
    from tightrope.export.recipe import plan

    path, _ = folder("compressed-tensors")
    opened = open_checkpoint(path)
    recipe = plan(opened, ExportConfig(precision="fp16"))
    assert recipe.notes(opened.load_model())[0] == "COMPRESSED-TENSORS weights were dequantised"


def test_the_methods_are_those_of_the_documentation() -> None:
    assert importlib.util.find_spec("tightrope.export.quantised") is not None
    text = (HERE.parent / "docs" / "checkpoints.md").read_text(encoding="utf-8")
    for name in METHODS:
        assert f"`{name}`" in text
