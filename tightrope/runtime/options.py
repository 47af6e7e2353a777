"""What a request is asked with: the prompt, images, and how it is answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from tightrope.budget import Budget
from tightrope.checks import check_type, check_whole
from tightrope.configs import setting
from tightrope.point import OperatingPoint

if TYPE_CHECKING:  # the command line reads defaults here and loads neither
    from pathlib import Path

    import PIL.Image

    from tightrope.arrays import Pixels
    from tightrope.latency import SourceImage

Prompt = str | Sequence[int] | Sequence[Mapping[str, Any]]
"""A question, token ids, or messages {"role", "content"}."""
ImageSource: TypeAlias = "str | Path | bytes | PIL.Image.Image | Pixels | Frame | Content"
"""A path, a data URL, an encoded file's bytes, a PIL image, or uint8 [H,W,3], [H,W,4] or [H,W];
one of a clip is made of what `frames` says; a Content is one whose header was read before."""
Frames: TypeAlias = "Sequence[tuple[float, ImageSource]]"
"""A clip: pairs of seconds and image, earlier ones first."""


@dataclass(frozen=True, slots=True)
class Content:
    """An image as it came, its header read."""

    data: bytes | PIL.Image.Image
    """An encoded file, or RGB pixels."""
    name: str
    """What errors call it."""
    header: SourceImage


@dataclass(frozen=True, slots=True)
class Frame:
    """What is read at once of a clip, among the images of a request."""

    source: ImageSource
    seconds: float
    """In the middle of its pictures."""
    behind: int | None
    """By how much the first axis of its positions exceeds that of the clip's first frame, where
    frames stand side by side; None: of the first one, and where positions do not tell the time."""
    others: tuple[ImageSource, ...] = ()
    """Pictures behind `source` that are read with it."""


MOST_LOGPROBS = 20
"""Of the likeliest tokens, beside the one that was taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `generate`, `stream` and `ask` take besides the prompt."""

    max_tokens: int = setting(256, "Longest answer.")
    temperature: float = setting(0.0, "0: always the likeliest token.")
    top_p: float = setting(1.0, "Share of the probability to sample from.")
    top_k: int = setting(0, "Sample from so many of the likeliest tokens; 0: from all.")
    min_p: float = setting(0.0, "Leave out what is less likely than this share of the likeliest.")
    repetition_penalty: float = setting(
        1.0, "Above 1, tokens of the prompt and the answer become less likely."
    )
    presence_penalty: float = setting(0.0, "Taken off the logits of tokens that were said.")
    frequency_penalty: float = setting(0.0, "The same for each time that they were.")
    logit_bias: Mapping[int, float] | None = setting(None, "Added to logits, by token id.")
    logprobs: int | None = setting(
        None, "Tell how likely tokens were, and so many of the likeliest ones beside each."
    )
    n: int = setting(1, "Answers to sample.")
    seed: int = setting(0, "Seed of the sampling.")
    stop: Sequence[str] | None = setting(None, "Ends the answer before it.")
    thinking: bool | None = setting(
        None, "Whether it thinks before it answers; left out, the chat template decides."
    )
    budget: Budget | None = None
    point: OperatingPoint | None = None
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        if self.budget is not None:
            check_type("budget", self.budget, Budget, "a Budget, or None")
        check_whole("max_tokens", self.max_tokens, least=1)
        if self.logprobs is not None:
            check_whole("logprobs", self.logprobs, least=0, most=MOST_LOGPROBS)
        if self.thinking is not None:
            check_type("thinking", self.thinking, bool, "True, False, or None")
        check_type("ignore_eos", self.ignore_eos, bool, "True or False")
