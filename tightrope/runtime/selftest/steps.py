"""A prompt and 32 taught tokens, so that any backend can be held against the answers of another.

A fixed prompt, with a tower one drawn picture as well, is read, and 32 tokens are taught one after
another: the likeliest where it was recorded, those very ones where it is checked. In selftest.npz:

    prompt      int64 [P], the placeholder standing for the picture
    picture     uint8 [H,W,3]; none in a text model, and none where the slots cannot hold it
    tokens      int64 [steps], what is taught
    top_ids     int64 [steps,8], likeliest first
    top_logits  float32 [steps,8]
    tolerance   float32 [], by how much a logit may differ
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tightrope.arrays import Array, Floats, Indices, Pixels
from tightrope.bundle import SELFTEST, Bundle, Manifest
from tightrope.point import OperatingPoint
from tightrope.runtime.loaded import Loaded
from tightrope.runtime.options import Options
from tightrope.runtime.stream import start
from tightrope.typed import typed_array

STEPS, TOP, PROMPT_TOKENS = 32, 8, 24
_BLOCKS = 8
_TEXT_BEFORE_PICTURE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How a backend's answer differs from the recorded one."""

    worst: float
    """Largest difference of a recorded logit."""
    tolerance: float
    astray: tuple[int, ...]
    """Steps whose logits differ by more, or whose likeliest token is another by more than a tie."""

    @property
    def passed(self) -> bool:
        return not self.astray


def recorded(loaded: Loaded, tolerance: float) -> dict[str, Array]:
    """The arrays of `selftest.npz`; raises what answering raises."""
    prompt, picture = prompt_of(loaded)
    logits, tokens = _taught(loaded, prompt, picture, None)
    top = np.argsort(-logits, axis=1, kind="stable")[:, :TOP]
    arrays: dict[str, Array] = {
        "prompt": np.array(prompt, np.int64),
        "tokens": tokens,
        "top_ids": top.astype(np.int64),
        "top_logits": np.take_along_axis(logits, top, axis=1).astype(np.float32),
        "tolerance": np.float32(tolerance),
    }
    return arrays if picture is None else arrays | {"picture": picture}


def stored(bundle: Bundle) -> dict[str, Array]:
    """The arrays of a bundle's `selftest.npz`; raises BundleError where they are none such."""
    arrays = bundle.read_arrays(SELFTEST)
    steps = np.size(arrays.get("tokens", ()))
    forms: dict[str, tuple[str, tuple[int | None, ...]]] = {
        "prompt": ("int64", (None,)),
        "tokens": ("int64", (None,)),
        "top_ids": ("int64", (steps, TOP)),
        "top_logits": ("float32", (steps, TOP)),
        "tolerance": ("float32", ()),
    }
    if "picture" in arrays:
        forms["picture"] = ("uint8", (None, None, 3))
    with bundle.damaged(SELFTEST):
        checked = {
            name: typed_array(arrays.get(name), kind, shape, name)
            for name, (kind, shape) in forms.items()
        }
        for name in ("prompt", "tokens", "top_ids"):
            _check_tokens(name, checked[name], bundle.manifest.dims.vocab_size)
        if "picture" in checked and 0 in checked["picture"].shape:
            raise ValueError(f"picture is empty: {checked['picture'].shape}")
    return checked


def _check_tokens(name: str, tokens: Indices, vocabulary: int) -> None:
    if tokens.size == 0 or tokens.min() < 0 or tokens.max() >= vocabulary:
        raise ValueError(f"{name} are not 1 token or more of the vocabulary of {vocabulary}")


def compare(loaded: Loaded, arrays: dict[str, Array]) -> Comparison:
    """The same steps on the backend that is loaded."""
    picture = arrays.get("picture")
    logits, _ = _taught(loaded, arrays["prompt"].tolist(), picture, arrays["tokens"])
    ids, expected, tolerance = arrays["top_ids"], arrays["top_logits"], float(arrays["tolerance"])
    apart = np.abs(np.take_along_axis(logits, ids, axis=1) - expected).max(1)
    # So that what is no number is astray.
    clear = expected[:, 0] - expected[:, 1] > tolerance
    wrong = ~(apart <= tolerance) | (clear & (logits.argmax(1) != ids[:, 0]))
    return Comparison(
        worst=float(apart.max()),
        tolerance=tolerance,
        astray=tuple(np.flatnonzero(wrong).tolist()),
    )


def prompt_of(loaded: Loaded) -> tuple[list[int], Pixels | None]:
    """Token ids and the picture that they ask about, both drawn from one seed."""
    manifest = loaded.manifest
    rng = np.random.RandomState(0)
    length = max(1, min(PROMPT_TOKENS, manifest.slots // 2))
    prompt = rng.randint(0, manifest.dims.vocab_size, length).tolist()
    if manifest.vision is None:
        return prompt, None
    placeholder = manifest.vision.image_token_id
    prompt = [token for token in prompt if token != placeholder]
    resolution = resolution_of(manifest)
    if resolution is None or manifest.tower is None:
        return prompt, None
    prompt.insert(_TEXT_BEFORE_PICTURE, placeholder)
    return prompt, drawn_picture(*manifest.tower.trial_size(resolution))


def drawn_picture(width: int, height: int) -> Pixels:
    """Coloured blocks [height,width,3], the same everywhere."""
    blocks = np.random.RandomState(1).randint(0, 256, (_BLOCKS, _BLOCKS, 3)).astype(np.uint8)
    down, across = (np.arange(side) * _BLOCKS // side for side in (height, width))
    return blocks[down][:, across]


def resolution_of(manifest: Manifest) -> int | None:
    """The first one whose visual tokens leave room in the slots for the rest."""
    tower = manifest.tower
    if manifest.vision is None or tower is None:
        return None
    for side in manifest.vision.resolutions:
        layout = tower.layout(tower.trial_size(side), side)
        if sum(map(len, layout)) + PROMPT_TOKENS < manifest.slots:
            return side
    return None


def _taught(
    loaded: Loaded, prompt: list[int], picture: Pixels | None, tokens: Indices | None
) -> tuple[Floats, Indices]:
    """Logits [steps,vocab] and tokens [steps]; tokens: what is taught, None for the likeliest."""
    seen: list[Floats] = []

    def choose(logits: Floats) -> Indices:
        seen.append(logits[0].copy())
        best = logits.argmax(1) if tokens is None else tokens[len(seen) - 1 : len(seen)]
        return best.astype(np.int64)

    steps = STEPS if tokens is None else len(tokens)
    point = OperatingPoint(resolution=resolution_of(loaded.manifest))
    options = Options(max_tokens=steps, ignore_eos=True, point=point)
    answer = start(loaded, prompt, [] if picture is None else [picture], options, choose).answer()
    return np.stack(seen), np.array(answer.token_ids, np.int64)
