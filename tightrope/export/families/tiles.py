"""What families share whose tower looks at tiles: their image processor, and ids between tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import PIL.Image
import transformers

from tightrope.errors import BundleError, InputError, UnsupportedModel
from tightrope.export.accounting import Account, Harmless, WithoutEffect
from tightrope.export.families.pixels import CLASSES, HARMLESS, WAY_OUT, plain, unreadable
from tightrope.export.families.tower import own_first
from tightrope.export.foreign import reading, silence
from tightrope.inputs.prepare.pixels import CONFIG_KEYS, SquarePixels
from tightrope.inputs.prepare.tiles import MOST_TILES_A_SIDE, TILING

_OF_TILES = (
    Harmless(r"do_pad|pad_size|padding_mode", "all tiles have one size"),
    Harmless(r"return_row_col_info", "the form of the result, which is fixed here"),
    Harmless(r"aspect_ratio_setting", "read by no class of transformers"),
    Harmless(r"video_sampling", "about videos"),
)


def tile_pixels(
    folder: Path, stored: Mapping[str, Any], classes: Sequence[type], own: Sequence[str]
) -> tuple[dict[str, Any], list[WithoutEffect]]:
    """preprocessor.json of tiles, and keys of the image processor that are without effect.

    stored: the image processor as its file has it. classes: those whose steps are followed here.
    own: keys that they have for tiles; their values come under `tiling`, with size and crop_size.
    Raises UnsupportedModel naming what is not understood.
    """
    if not stored:
        raise unreadable(folder)
    with silence(), reading(f"{folder} has no image processor that can be read", WAY_OUT):
        processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    if type(processor) not in classes:
        accepted = ", ".join(entry.__name__.removesuffix("Pil") for entry in classes)
        raise UnsupportedModel(
            f"the image processor is a {type(processor).__name__}, whose tiles are not known here; "
            f"accepted: {accepted}"
        )
    account = Account("keys of the image processor", stored, (*_OF_TILES, *HARMLESS), WAY_OUT)
    account.take_all((*CLASSES, *own, *CONFIG_KEYS))
    without_effect = account.close()
    found = {key: plain(getattr(processor, key, None)) for key in (*CONFIG_KEYS, *own)}
    if not found["do_resize"]:
        raise UnsupportedModel(
            f"the image processor has do_resize off, so it makes no tiles; {WAY_OUT}"
        )
    filters = sorted(map(int, PIL.Image.Resampling))
    if found["resample"] not in filters:
        raise UnsupportedModel(
            f"the image processor has resample {found['resample']!r}; accepted: {filters}; "
            f"{WAY_OUT}"
        )
    for key in ("image_mean", "image_std"):
        if isinstance(found[key], (int, float)):
            found[key] = [found[key]] * 3
    steps = ("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")
    config = {key: found[key] for key in steps if found[key] is not None}
    config |= {"do_resize": False, "do_center_crop": False, "resample": found["resample"]}
    try:
        SquarePixels(config)
    except BundleError as error:
        said = str(error).removeprefix("preprocessor.json ").partition("; export")[0]
        raise UnsupportedModel(f"the image processor {said}; {WAY_OUT}") from error
    config[TILING] = {key: found[key] for key in ("size", "crop_size", *own)}
    return config, without_effect


def check_tile(made: object, tile: int) -> None:
    """Raises UnsupportedModel where the processor makes other tiles than the tower takes."""
    if made != tile:
        raise UnsupportedModel(
            f"the image processor makes tiles of {made} pixels, the tower takes {tile}; {WAY_OUT}"
        )


def checked_resolutions(
    asked: Sequence[int] | None, accepted: Sequence[int], tile: int
) -> tuple[int, ...]:
    """The resolutions of a bundle; accepted: those there may be, the checkpoint's own last.

    Raises InputError for others, and UnsupportedModel where the checkpoint itself wants more tiles
    than a bundle may have.
    """
    own = accepted[-1]
    if own > MOST_TILES_A_SIDE * tile:
        raise UnsupportedModel(
            f"the image processor makes pictures of {own} pixels, more than {MOST_TILES_A_SIDE} "
            f"tiles of {tile} on a side; {WAY_OUT}"
        )
    for side in asked or ():
        if side not in accepted:
            listed = ", ".join(map(str, accepted))
            said = f"{accepted[0]} to {own}" if isinstance(accepted, range) else listed
            raise InputError(f"resolution is {side}; accepted: {said}, tiles having {tile} pixels")
    return own_first(asked, own)


def ids_between(tokenizer: Any, before: str, text: str, after: str) -> tuple[int, ...]:
    """Ids of `text` as it is encoded between two control tokens."""
    ids: list[int] = tokenizer.encode(before + text + after, add_special_tokens=False)
    marks = [tokenizer.convert_tokens_to_ids(token) for token in (before, after)]
    if len(ids) < 3 or [ids[0], ids[-1]] != marks:
        raise UnsupportedModel(
            f"the tokenizer does not know {before!r} and {after!r} as tokens of their own; put the "
            "model's own tokenizer.json beside its config.json"
        )
    return tuple(ids[1:-1])
