"""Gemma 3 with images: what is read of a checkpoint, and what is refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

torch = pytest.importorskip("torch", reason="exporting needs torch")

import safetensors.torch  # noqa: E402
import transformers  # noqa: E402

from tightrope.bundle import Bundle  # noqa: E402
from tightrope.errors import InputError, UnsupportedModel  # noqa: E402
from tightrope.export.checkpoint import open_checkpoint  # noqa: E402
from tightrope.export.config import ExportConfig  # noqa: E402
from tightrope.export.recipe import Recipe, plan  # noqa: E402

Find = Callable[[str], Path]
Copy = Callable[[], Path]
Edit = Callable[[dict[str, Any]], object]
NAME, CONFIG, PROCESSOR = "gemma3-vl", "config.json", "preprocessor_config.json"


@pytest.fixture
def copy(checkpoint: Find, tmp_path: Path) -> Copy:
    """The checkpoint, to be written otherwise."""
    return lambda: Path(shutil.copytree(checkpoint(NAME), tmp_path / "checkpoint"))


def edit(folder: Path, file: str, change: Edit) -> None:
    values = json.loads((folder / file).read_text(encoding="utf-8"))
    change(values)
    (folder / file).write_text(json.dumps(values), encoding="utf-8")


def recipe_of(folder: Path, **config: Any) -> Recipe:
    return plan(open_checkpoint(folder), ExportConfig(**config))


def test_a_bundle_says_of_its_images_what_the_host_needs(bundle: Find) -> None:
    manifest = Bundle.open(bundle(NAME)).manifest
    vision = manifest.vision
    assert vision is not None and manifest.tower is not None
    assert manifest.dims.reach and manifest.windows == (11, 0, 11, 0)
    assert vision.sizes["pool"] == 2 and vision.resolutions == (56, 28)
    assert vision.image_token == "<start_of_image>"
    assert vision.image_text == "\n\n<start_of_image><image_soft_token><end_of_image>\n\n"
    assert [manifest.tower.most_tokens(side) for side in vision.resolutions] == [16, 4]
    assert manifest.tower.token_ranges()["P"] == (16, 64, 64)
    assert set(manifest.selectors) == {"divprune"}
    assert manifest.parity is not None and manifest.parity.equal_tokens == 9
    assert manifest.parity.logits <= 1e-4


@pytest.mark.parametrize("size", [(80, 60), (31, 97), (56, 56), (300, 2), (1, 1)])
def test_pixels_are_those_of_the_processor(size: tuple[int, int], checkpoint: Find) -> None:
    recipe = recipe_of(checkpoint(NAME))
    assert recipe.vision is not None
    theirs = transformers.AutoImageProcessor.from_pretrained(checkpoint(NAME), backend="pil")
    rng = np.random.default_rng(size)
    image = PIL.Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8))
    table = {"56": np.zeros((1, 64, 36), np.float32)}
    ours = recipe.vision.host.prepare(recipe.preprocessor, table)([image], 56)["pixel_values"]
    wanted = theirs(images=[image], return_tensors="np")["pixel_values"]
    np.testing.assert_array_equal(ours, np.asarray(wanted))


def publish(folder: Path) -> None:
    """As Gemma 3 was in 2025: rotary rules in words of old, the tower one name deeper."""

    def flatten(config: dict[str, Any]) -> None:
        text = config["text_config"]
        text.pop("rope_parameters")
        text.pop("layer_types")
        text |= {
            "rope_theta": 1e6,
            "rope_local_base_freq": 1e4,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            "sliding_window_pattern": 2,
        }
        config["torch_dtype"] = "float32"

    edit(folder, CONFIG, flatten)
    file, inner = folder / "model.safetensors", "vision_tower."
    stored = {}
    for name, tensor in safetensors.torch.load_file(file).items():
        rest = name.removeprefix(inner)
        stored[name if rest == name else f"{inner}vision_model.{rest}"] = tensor
    safetensors.torch.save_file(stored, file, metadata={"format": "pt"})


def test_a_checkpoint_loads_in_the_layout_in_which_it_was_published(
    copy: Copy, checkpoint: Find
) -> None:
    folder = copy()
    publish(folder)
    plain, published = recipe_of(checkpoint(NAME)), recipe_of(folder)
    assert published.dims == plain.dims
    assert published.vision is not None and plain.vision is not None
    assert published.vision.info == plain.vision.info
    ours, theirs = (one.checkpoint.load_model() for one in (published, plain))
    assert ours.config.text_config.layer_types == theirs.config.text_config.layer_types
    stored, wanted = ours.state_dict(), theirs.state_dict()
    assert stored.keys() == wanted.keys()
    assert all(torch.equal(stored[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize("side", [7, 20, 57])
def test_a_resolution_of_no_whole_tokens_is_refused(side: int, checkpoint: Find) -> None:
    with pytest.raises(InputError, match=f"resolution is {side}; accepted: multiples of 14"):
        recipe_of(checkpoint(NAME), resolutions=(side,))


def test_a_call_has_to_hold_an_image(checkpoint: Find) -> None:
    assert recipe_of(checkpoint(NAME), prefill_chunk=16).prefill_chunk == 16
    with pytest.raises(InputError, match="prefill_chunk is 16; accepted: 36 or more, because"):
        recipe_of(checkpoint(NAME), prefill_chunk=16, resolutions=(56, 84))


@pytest.mark.parametrize("selector", ["flashvlm", "visionzip"])
def test_a_selector_that_needs_cls_is_refused_with_those_that_do_not(
    selector: str, checkpoint: Find
) -> None:
    said = f"selector {selector} needs cls_attention.* it can feed: divprune"
    with pytest.raises(UnsupportedModel, match=said):
        recipe_of(checkpoint(NAME), selectors=(selector,))


REFUSED: dict[str, tuple[str, Edit, str]] = {
    "crops": (
        PROCESSOR,
        lambda p: p.update(do_pan_and_scan=True),
        "the image processor has do_pan_and_scan True; accepted: off.*set it to false",
    ),
    "a crop that its code passes over": (
        PROCESSOR,
        lambda p: p.update(do_center_crop=True),
        "has do_center_crop True",
    ),
    "pictures of another size": (
        PROCESSOR,
        lambda p: p.update(size={"height": 48, "width": 48}),
        "makes pictures of 48 x 48 pixels, the tower takes 56",
    ),
    "a key that nothing reads": (
        PROCESSOR,
        lambda p: p.update(sharpen=2),
        "keys of the image processor that nothing here reads.*sharpen",
    ),
    "a processor for tiles": (
        PROCESSOR,
        lambda p: p.update(image_processor_type="SmolVLMImageProcessor"),
        "is a SmolVLMImageProcessorPil, whose steps are not known here",
    ),
    "another tower": (
        CONFIG,
        lambda c: c["vision_config"].update(model_type="clip_vision_model"),
        "tower of type 'clip_vision_model'; accepted: siglip_vision_model",
    ),
    "tokens of no square": (
        CONFIG,
        lambda c: c.update(mm_tokens_per_image=15),
        "mm_tokens_per_image is 15, a tower of 56 pixels has 8 x 8 patches",
    ),
    "tokens that do not divide the patches": (
        CONFIG,
        lambda c: c.update(mm_tokens_per_image=9),
        "mm_tokens_per_image is 9",
    ),
    "no tokens": (CONFIG, lambda c: c.update(mm_tokens_per_image=0), "mm_tokens_per_image is 0"),
    "text that sees what follows": (
        CONFIG,
        lambda c: c["text_config"].update(use_bidirectional_attention=True),
        "tokens attend to later ones",
    ),
    "a mark that is no token": (
        CONFIG,
        lambda c: c.update(boi_token_index=99999),
        "boi_token_index is 99999, which is none of the tokenizer's",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_understood_is_refused_by_name(what: str, copy: Copy) -> None:
    file, change, said = REFUSED[what]
    folder = copy()
    edit(folder, file, change)
    with pytest.raises(UnsupportedModel, match=said):
        recipe_of(folder)
