"""Families whose towers look at tiles: what cannot be exported exactly is refused by name."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers", reason="exporting needs transformers")

from tightrope.errors import InputError, TightropeError, UnsupportedModel
from tightrope.export.checkpoint import open_checkpoint
from tightrope.export.config import ExportConfig
from tightrope.export.recipe import plan

Find = Callable[[str], Path]
Edit = Callable[[dict[str, Any]], Any]
PIXELS, CONFIG, TEXT = "preprocessor_config.json", "config.json", "tokenizer_config.json"


def vision(**changes: Any) -> Edit:
    return lambda values: values["vision_config"].update(changes)


def top(**changes: Any) -> Edit:
    return lambda values: values.update(changes)


REFUSED: dict[str, tuple[str, str, Edit, str]] = {
    "an unknown key": (
        "smolvlm",
        PIXELS,
        top(sharpen=3),
        "keys of the image processor that nothing here reads.*sharpen",
    ),
    "code of its own": (
        "llava-siglip",
        PIXELS,
        top(auto_map={"AutoImageProcessor": "evil.Processor"}),
        r"preprocessor_config\.json has an auto_map: the checkpoint needs code of its own",
    ),
    "squares where tiles belong": (
        "llava-next",
        PIXELS,
        top(image_processor_type="CLIPImageProcessor"),
        "is a CLIPImageProcessorPil, whose tiles are not known here; accepted: LlavaNext",
    ),
    "tiles where squares belong": (
        "llava-siglip",
        PIXELS,
        top(image_processor_type="SmolVLMImageProcessor"),
        "is a SmolVLMImageProcessorPil, whose steps are not known here",
    ),
    "no resizing": ("internvl", PIXELS, top(do_resize=False), "has do_resize off"),
    "a filter that is none": ("internvl", PIXELS, top(resample=9), "resample 9"),
    "no mean": ("internvl", PIXELS, top(image_mean=[0.5]), "has image_mean"),
    "tiles of another size": (
        "llava-next",
        PIXELS,
        top(crop_size={"height": 14, "width": 14}),
        "makes tiles of 14 pixels, the tower takes 28",
    ),
    "tiles of another size, InternVL": (
        "internvl",
        PIXELS,
        top(size={"height": 56, "width": 56}),
        "makes tiles of 56 pixels, the tower takes 28",
    ),
    "tiles of another size, SmolVLM": (
        "smolvlm",
        PIXELS,
        top(max_image_size={"longest_edge": 30}),
        "makes tiles of 30 pixels, the tower takes 28",
    ),
    "other grids than the model's": (
        "llava-next",
        PIXELS,
        top(image_grid_pinpoints=[[28, 56]]),
        "image_grid_pinpoints are not those of config.json",
    ),
    "no longest side": (
        "smolvlm",
        PIXELS,
        top(size={"height": 28, "width": 28}),
        "accepted: a longest_edge of 28 to 4096",
    ),
    "a longest side below a tile": (
        "smolvlm",
        PIXELS,
        top(size={"longest_edge": 20}),
        "accepted: a longest_edge of 28 to 4096",
    ),
    "tiles without number": (
        "smolvlm",
        PIXELS,
        top(size={"longest_edge": 460}),
        "makes pictures of 460 pixels, more than 16 tiles of 28",
    ),
    "fewer tiles than the least": (
        "internvl",
        PIXELS,
        top(min_patches=8),
        "min_patches 8 and max_patches 6",
    ),
    "a ratio in words": (
        "llava-onevision",
        CONFIG,
        top(vision_aspect_ratio="anyres"),
        "vision_aspect_ratio is 'anyres'; accepted: anyres_max_",
    ),
    "the first patch taken for CLS": (
        "llava-siglip",
        CONFIG,
        top(vision_feature_select_strategy="default"),
        "strategy is 'default'; accepted: 'full', a SigLIP tower having no CLS",
    ),
    "CLS among the tokens": (
        "internvl",
        CONFIG,
        top(vision_feature_select_strategy="full"),
        "strategy is 'full'; accepted: 'default'",
    ),
    "a shuffle that does not fit": (
        "smolvlm",
        CONFIG,
        top(scale_factor=3),
        "no even, whole number of 3 x 3 patches",
    ),
    "a shuffle by no whole number": (
        "internvl",
        CONFIG,
        top(downsample_ratio=0.4),
        "downsample_ratio 0.4; accepted: squares, and one by a whole number",
    ),
    "tiles that are no squares": (
        "internvl",
        CONFIG,
        vision(image_size=[28, 56]),
        r"image_size \[28, 56\]",
    ),
    "a layer too deep": ("internvl", CONFIG, top(vision_feature_layer=4), "the tower has 3 layers"),
    "no name for a mark": (
        "internvl",
        TEXT,
        lambda values: (
            values.pop("start_image_token", None)
            or values.get("extra_special_tokens", {}).pop("start_image_token", None)
            or values.get("model_specific_special_tokens", {}).pop("start_image_token", None)
        ),
        "names no start_image_token",
    ),
}


@pytest.fixture
def changed(checkpoint: Find, tmp_path: Path) -> Callable[[str, str, Edit], Path]:
    """A copy of a checkpoint with one of its JSON files edited."""

    def change(name: str, file: str, edit: Edit) -> Path:
        folder = tmp_path / name
        shutil.copytree(checkpoint(name), folder)
        values = json.loads((folder / file).read_text(encoding="utf-8"))
        edit(values)
        (folder / file).write_text(json.dumps(values), encoding="utf-8")
        return folder

    return change


def refusal(folder: Path, **options: Any) -> TightropeError:
    with pytest.raises(TightropeError) as caught:
        plan(open_checkpoint(folder), ExportConfig(**options))
    return caught.value


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_understood_is_named(
    what: str, changed: Callable[[str, str, Edit], Path]
) -> None:
    name, file, edit, said = REFUSED[what]
    error = refusal(changed(name, file, edit))
    assert isinstance(error, UnsupportedModel)
    assert re.search(said, str(error)), str(error)


@pytest.mark.parametrize(
    ("name", "side", "said"),
    [
        ("llava-next", 57, "resolution is 57; accepted: 28, 56, 84, tiles having 28 pixels"),
        ("smolvlm", 113, "resolution is 113; accepted: 28 to 112, tiles"),
        ("internvl", 27, "resolution is 27; accepted: 28 to 69, tiles"),
        ("llava-siglip", 31, "resolution is 31; accepted: multiples of the tower's patch"),
    ],
)
def test_a_resolution_that_there_is_not_names_those_there_are(
    name: str, side: int, said: str, checkpoint: Find
) -> None:
    error = refusal(checkpoint(name), resolutions=(side,))
    assert isinstance(error, InputError) and said in str(error)


@pytest.mark.parametrize("name", ["llava-siglip", "llava-onevision", "smolvlm", "internvl"])
@pytest.mark.parametrize("selector", ["visionzip", "flashvlm"])
def test_a_selector_that_a_tower_cannot_feed_names_those_it_can(
    name: str, selector: str, checkpoint: Find
) -> None:
    error = refusal(checkpoint(name), selectors=(selector,))
    assert isinstance(error, UnsupportedModel)
    assert f"selector {selector} needs" in str(error)
    assert "does not give; it can feed: divprune" in str(error)
    made = plan(open_checkpoint(checkpoint(name)), ExportConfig())
    assert made.selectors == ("divprune",)
