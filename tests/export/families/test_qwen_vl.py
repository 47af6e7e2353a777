"""Qwen-VL checkpoints in the layouts in which they are published, and those that are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="exporting needs torch")

import safetensors.torch  # noqa: E402

from tightrope.bundle import Bundle  # noqa: E402
from tightrope.errors import InputError, UnsupportedModel  # noqa: E402
from tightrope.export.checkpoint import open_checkpoint  # noqa: E402
from tightrope.export.config import ExportConfig  # noqa: E402
from tightrope.export.recipe import Recipe, plan  # noqa: E402
from tightrope.export.tracing.tower import trace_tower  # noqa: E402
from tightrope.export.tracing.trace import fake_model, fake_tensors  # noqa: E402

Find = Callable[[str], Path]
Copy = Callable[[str], Path]
Edit = Callable[[dict[str, Any]], object]
FAMILIES = ("qwen2_5_vl", "qwen3_vl")
CELL = {"qwen2_5_vl": 12, "qwen3_vl": 16}


@pytest.fixture
def copy(checkpoint: Find, tmp_path: Path) -> Copy:
    """`copy("qwen3_vl")`: a checkpoint that may be written otherwise."""
    return lambda name: Path(shutil.copytree(checkpoint(name), tmp_path / "checkpoint"))


def edit(folder: Path, file: str, change: Edit) -> None:
    values = json.loads((folder / file).read_text(encoding="utf-8"))
    change(values)
    (folder / file).write_text(json.dumps(values), encoding="utf-8")


def recipe_of(folder: Path, **config: Any) -> Recipe:
    return plan(open_checkpoint(folder), ExportConfig(**config))


def rename(folder: Path, names: dict[str, str]) -> None:
    """Store tensors under the first of `names` that begins theirs, replaced."""
    file = folder / "model.safetensors"
    stored = {}
    for name, tensor in safetensors.torch.load_file(file).items():
        begin = next((begin for begin in names if name.startswith(begin)), "")
        stored[names.get(begin, "") + name.removeprefix(begin)] = tensor
    safetensors.torch.save_file(stored, file, metadata={"format": "pt"})


def publish_2025(folder: Path) -> None:
    """As Qwen2.5-VL and MiMo-VL were: the language model's entries beside the tower's."""

    def flatten(config: dict[str, Any]) -> None:
        text = config.pop("text_config")
        text.pop("model_type", None)
        rope = text.pop("rope_parameters")
        config |= text
        config["rope_theta"] = rope["rope_theta"]
        config["rope_scaling"] = {"type": "mrope", "mrope_section": rope["mrope_section"]}
        config["torch_dtype"] = "float32"
        vision = config["vision_config"]
        vision.pop("rope_parameters", None)
        vision["model_type"] = "qwen2_5_vl"
        vision["in_chans"] = vision.pop("in_channels", 3)
        vision["spatial_patch_size"] = vision["patch_size"]

    edit(folder, "config.json", flatten)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_bundle_says_of_its_tower_what_the_host_needs(name: str, bundle: Find) -> None:
    manifest = Bundle.open(bundle(name)).manifest
    assert manifest.vision is not None and manifest.tower is not None
    assert manifest.positions == "mrope" and manifest.dims.rope_axes == 3
    sizes = manifest.vision.sizes
    windows, table, levels = {"qwen2_5_vl": (2, 0, 0), "qwen3_vl": (0, 7, 3)}[name]
    assert (sizes["window"], sizes["table"], sizes["deepstack"]) == (windows, table, levels)
    assert manifest.dims.deepstack == levels
    assert set(manifest.selectors) == {"divprune"}
    assert manifest.parity is not None and manifest.parity.equal_tokens == 9
    assert manifest.parity.logits <= 1e-4


@pytest.mark.parametrize("name", FAMILIES)
def test_a_tower_has_one_node_of_packed_attention_a_block(name: str, checkpoint: Find) -> None:
    recipe = recipe_of(checkpoint(name))
    assert recipe.vision is not None
    with fake_tensors():
        model = fake_model(recipe.checkpoint.auto_class, recipe.checkpoint.config)
        traced = trace_tower(model, recipe.vision, recipe.dims.hidden_size)
    nodes = [node for node in traced.graph.all_nodes() if node.domain == "tightrope"]
    assert [node.op_type for node in nodes] == ["VarlenAttention"] * {
        "qwen2_5_vl": 3,
        "qwen3_vl": 4,
    }[name]
    longest = [node.attributes["longest"].as_int() for node in nodes]
    # The block in the middle of Qwen2.5-VL's sees the whole image, the others 4 x 4 patches.
    assert longest == {"qwen2_5_vl": [16, 0, 16], "qwen3_vl": [0, 0, 0, 0]}[name]
    parameters = {each.removeprefix("model.") for each in traced.graph.initializers}
    known = dict(recipe.checkpoint.load_model().named_parameters(remove_duplicate=False))
    assert {each for each in parameters if each.endswith(("weight", "bias"))} <= set(known)


PUBLISHED: dict[str, tuple[str, Callable[[Path], None], dict[str, str]]] = {
    "Qwen2.5-VL of 2025": (
        "qwen2_5_vl", publish_2025, {"model.visual.": "visual.", "model.language_model.": "model."}
    ),
    "nested, tensors as of old": (
        "qwen2_5_vl",
        lambda _: None,
        {"model.visual.": "visual.", "model.language_model.": "model."},
    ),
    "Qwen3-VL with its rope_scaling": (
        "qwen3_vl",
        lambda folder: edit(
            folder,
            "config.json",
            lambda c: c["text_config"].update(
                rope_theta=c["text_config"]["rope_parameters"]["rope_theta"],
                rope_scaling={
                    "mrope_interleaved": True, "mrope_section": [4, 3, 2], "rope_type": "default"
                },
            ) or c["text_config"].pop("rope_parameters"),
        ),
        {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("layout", PUBLISHED)
def test_checkpoints_load_in_the_layouts_in_which_they_were_published(
    layout: str, copy: Copy, checkpoint: Find
) -> None:
    name, publish, names = PUBLISHED[layout]
    folder = copy(name)
    publish(folder)
    rename(folder, names)
    plain, published = recipe_of(checkpoint(name)), recipe_of(folder)
    assert published.dims == plain.dims
    assert published.vision is not None and plain.vision is not None
    assert published.vision.info == plain.vision.info
    assert published.preprocessor == plain.preprocessor
    ours, theirs = (one.checkpoint.load_model().state_dict() for one in (published, plain))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    rope = [one.checkpoint.config.get_text_config().rope_parameters for one in (published, plain)]
    assert rope[0]["mrope_section"] == rope[1]["mrope_section"]
    assert rope[0]["rope_theta"] == rope[1]["rope_theta"]


MIMO: dict[str, Any] = {
    "model_type": "qwen2_5_vl",
    "architectures": ["Qwen2_5_VLForConditionalGeneration"],
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "max_position_embeddings": 128000,
    "max_window_layers": 36,
    "num_attention_heads": 32,
    "num_hidden_layers": 36,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-6,
    "rope_scaling": {"mrope_section": [16, 24, 24], "rope_type": "default", "type": "default"},
    "rope_theta": 640000,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_sliding_window": False,
    "vocab_size": 151680,
    "vision_config": {
        "depth": 32,
        "fullatt_block_indexes": [7, 15, 23, 31],
        "hidden_size": 1280,
        "in_chans": 3,
        "intermediate_size": 3456,
        "model_type": "qwen2_5_vl",
        "num_heads": 16,
        "out_hidden_size": 4096,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "spatial_patch_size": 14,
        "temporal_patch_size": 2,
        "tokens_per_second": 2,
        "window_size": 112,
    },
}
"""MiMo-VL-7B, Miloco among its kind; ids of its tokens are those of the small tokenizer here."""


def test_mimo_vl_is_read_as_a_qwen2_5_vl(copy: Copy) -> None:
    folder = copy("qwen2_5_vl")
    ids = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")

    def become(config: dict[str, Any]) -> None:
        kept = {name: config[name] for name in ids}
        config.clear()
        config.update(MIMO | kept)

    edit(folder, "config.json", become)
    pixels = {"patch_size": 14, "min_pixels": 3136, "max_pixels": 12845056}
    edit(folder, "preprocessor_config.json", lambda p: p.update(pixels))
    recipe = recipe_of(folder)
    dims, vision = recipe.dims, recipe.vision
    assert vision is not None and recipe.checkpoint.family.model_type == "qwen2_5_vl"
    assert (dims.num_hidden_layers, dims.num_key_value_heads, dims.head_dim) == (36, 8, 128)
    assert (dims.rope_axes, dims.vocab_size) == (3, 151680)
    # 8 x 8 patches of 14 pixels are a window, 4 x 4 cells.
    assert (vision.info.sizes["window"], vision.info.second, vision.info.together) == (4, 2, 2)
    assert vision.info.resolutions == (756,)


def test_without_a_wish_the_budget_is_one_that_a_board_reads(checkpoint: Find) -> None:
    recipe = recipe_of(checkpoint("qwen2_5_vl"))
    assert recipe.vision is not None
    # The checkpoint allows 240 x 240 pixels here; those that people use allow far more than 768.
    assert recipe.vision.info.resolutions == (240,)
    assert recipe.vision.host.most_tokens(240) == 400


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("side", [10, 50, 4800])
def test_budgets_that_no_grid_fills_are_refused(name: str, side: int, checkpoint: Find) -> None:
    with pytest.raises(InputError, match=f"resolution is {side}; accepted: multiples of"):
        recipe_of(checkpoint(name), resolutions=(side,))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("selector", ["flashvlm", "visionzip"])
def test_a_selector_that_needs_cls_is_refused_with_those_that_do_not(
    name: str, selector: str, checkpoint: Find
) -> None:
    said = f"selector {selector} needs cls_attention.* it can feed: divprune"
    with pytest.raises(UnsupportedModel, match=said):
        recipe_of(checkpoint(name), selectors=(selector,))


CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"
REFUSED: dict[str, tuple[str, str, Edit, str]] = {
    "sections of another head": (
        "qwen2_5_vl", CONFIG,
        lambda c: c["text_config"]["rope_parameters"].update(mrope_section=[2, 2, 2]),
        "mrope_section is .*; accepted: three numbers that make up half a head, 9",
    ),
    "frequencies that take turns where they do not": (
        "qwen2_5_vl", CONFIG,
        lambda c: c["text_config"]["rope_parameters"].update(mrope_interleaved=True),
        "another mrope_interleaved than False",
    ),
    "frequencies that do not where they take turns": (
        "qwen3_vl", CONFIG,
        lambda c: c["text_config"]["rope_parameters"].update(mrope_interleaved=False),
        "another mrope_interleaved than True",
    ),
    "a tower of another width": (
        "qwen3_vl", CONFIG,
        lambda c: c["vision_config"].update(out_hidden_size=64), "out_hidden_size 64; accepted: 60",
    ),
    "windows of less than a cell": (
        "qwen2_5_vl", CONFIG,
        lambda c: c["vision_config"].update(window_size=8), "window_size 8, less than a cell",
    ),
    "more levels than layers": (
        "qwen3_vl", CONFIG,
        lambda c: c["text_config"].update(num_hidden_layers=1),
        "3 levels of DeepStack for 1 layers",
    ),
    "patches of two sides": (
        "qwen3_vl", CONFIG,
        lambda c: c["vision_config"].update(patch_size=[8, 8]), r"patch_size",
    ),
    "a processor for another tower": (
        "qwen2_5_vl", PROCESSOR,
        lambda p: p.update(image_processor_type="CLIPImageProcessor"),
        "a CLIPImageProcessorPil, whose steps are not known here; accepted: Qwen2VLImage",
    ),
    "patches of another size": (
        "qwen2_5_vl", PROCESSOR,
        lambda p: p.update(patch_size=8), "patches of 8 x 8 x 2 and merges 2, the tower takes 6",
    ),
    "a key that nothing reads": (
        "qwen3_vl", PROCESSOR,
        lambda p: p.update(sharpen=2), "keys of the image processor that nothing here reads.*sharp",
    ),
    "no scaling": (
        "qwen3_vl", PROCESSOR,
        lambda p: p.update(do_resize=False), "the image processor has do_resize False",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_understood_is_refused_by_name(what: str, copy: Copy) -> None:
    name, file, change, said = REFUSED[what]
    folder = copy(name)
    edit(folder, file, change)
    with pytest.raises(UnsupportedModel, match=said):
        recipe_of(folder)


def test_a_processor_that_is_missing_is_told(copy: Copy) -> None:
    folder = copy("qwen3_vl")
    (folder / PROCESSOR).unlink()
    with pytest.raises(UnsupportedModel, match=r"has no preprocessor_config\.json"):
        recipe_of(folder)
