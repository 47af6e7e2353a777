"""A checkpoint's image processor as preprocessor.json: everything stated, nothing left to a class.

What config.json or the processor's own file leaves out is the default of its class, which is asked
for it here: the runtime has no transformers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any

import transformers
from transformers.image_processing_backends import PilBackend
from transformers.image_utils import SizeDict
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from tightrope.errors import BundleError, UnsupportedModel
from tightrope.export.accounting import Account, Harmless, WithoutEffect
from tightrope.export.foreign import reading, silence
from tightrope.inputs.prepare.pixels import CONFIG_KEYS, SquarePixels

WAY_OUT = "take the image processor's file from where the checkpoint was published"
HARMLESS = (
    Harmless(r"do_convert_rgb", "images arrive as RGB"),
    Harmless(r"_valid_processor_keys|_valid_kwargs_names", "a list of keys"),
    Harmless(
        r"return_tensors|data_format|input_data_format|device|disable_grouping|return_metadata",
        "the form of the result, which is fixed here",
    ),
    Harmless(r"default_to_square", "whether one number is a square; its class decides it"),
    Harmless(r"image_seq_length|patch_size|num_additional_image_tokens", "said by config.json"),
    Harmless(r"image_token|vision_feature_select_strategy|chat_template", "not about pixels"),
)
"""Keys of an image processor that change no pixel."""
CLASSES = ("image_processor_type", "feature_extractor_type", "processor_class")
"""Keys that name what reads the others."""
_PADDING = ("pad_size",)
"""Read where images are padded to a common size; padding to a square passes it over."""


def unreadable(folder: Path) -> UnsupportedModel:
    """For a checkpoint without an image processor."""
    return UnsupportedModel(
        f"{folder} has neither preprocessor_config.json nor an image_processor in "
        f"processor_config.json; {WAY_OUT}"
    )


def square_pixels(
    folder: Path,
    stored: Mapping[str, Any],
    side: int,
    classes: Sequence[type] = (),
    harmless: Sequence[Harmless] = (),
) -> tuple[dict[str, Any], list[WithoutEffect]]:
    """preprocessor.json of images that become `side` x `side`, and keys that are without effect.

    stored: the image processor as its file has it. classes: those that do no more than the common
    ones, given what `stored` says. harmless: keys of theirs. Raises UnsupportedModel naming what is
    not understood, and where another size comes out than the tower takes.
    """
    if not stored:
        raise unreadable(folder)
    with silence(), reading(f"{folder} has no image processor that can be read", WAY_OUT):
        processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    pads_to_square = isinstance(processor, LlavaImageProcessorPil)
    common = type(processor)._preprocess is PilBackend._preprocess or type(processor) in classes
    if not (pads_to_square or common):
        raise UnsupportedModel(
            f"the image processor is a {type(processor).__name__}, whose steps are not known here; "
            "accepted: those of CLIP, LLaVA and SigLIP"
        )
    account = Account("keys of the image processor", stored, (*harmless, *HARMLESS), WAY_OUT)
    account.take_all((*CONFIG_KEYS, *CLASSES))
    config = {key: plain(getattr(processor, key, None)) for key in CONFIG_KEYS}
    config |= {key: bool(value) for key, value in config.items() if key.startswith("do_")}
    account.take_all(_PADDING)
    if config["do_pad"] and not pads_to_square:
        _check_padding(plain(processor.pad_size), side)
        config["do_pad"] = False
    for key in ("image_mean", "image_std"):
        if isinstance(config[key], (int, float)):
            config[key] = [config[key]] * 3
    mean = config["image_mean"] or (0, 0, 0)
    config["background"] = [int(level * 255) for level in mean] if config["do_pad"] else None
    without_effect = account.close()
    config = {key: value for key, value in config.items() if value is not None}
    _check(config, side)
    return config, without_effect


def _check_padding(pad_size: Any, side: int) -> None:
    """Other processors than LLaVA's pad last, all images of a batch to the largest or to pad_size.

    Images that have one size already stay as they are.
    """
    if pad_size not in (None, {}, {"height": side, "width": side}):
        raise UnsupportedModel(
            f"the image processor has do_pad and pad_size {pad_size}, the tower takes "
            f"{side} x {side}; {WAY_OUT}"
        )


def _check(config: dict[str, Any], side: int) -> None:
    try:
        own = SquarePixels(config).own_side
    except BundleError as error:
        said = str(error).removeprefix("preprocessor.json ").partition("; export")[0]
        raise UnsupportedModel(f"the image processor {said}; {WAY_OUT}") from error
    if own not in (None, side):
        raise UnsupportedModel(
            f"the image processor makes pictures of {own} x {own} pixels, the tower takes "
            f"{side} x {side}; {WAY_OUT}"
        )


def plain(value: Any) -> Any:
    """A setting as JSON has it; sizes without their empty entries."""
    if isinstance(value, SizeDict):
        return dict(value)
    if isinstance(value, IntEnum):  # filters
        return int(value)
    return list(value) if isinstance(value, (list, tuple)) else value
