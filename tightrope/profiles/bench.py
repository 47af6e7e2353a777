"""Speed of a bundle on this machine, test by test: prompt processing, generation, an image's way.

Tests are named as in llama-bench: pp512 reads 512 tokens, tg128 generates 128. Each is run once
unmeasured, then `repetitions` times; every repetition reads other tokens and another image, so
that nothing is answered from a cache of an earlier one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tightrope.budget import OperatingPoint
from tightrope.errors import InputError

if TYPE_CHECKING:
    from tightrope.runtime.answer import Answer
    from tightrope.runtime.model import Model

IMAGE_QUESTION = "Describe the image."


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchConfig:
    """What is measured, and how often."""

    prompt_tokens: tuple[int, ...] = (512,)
    """Lengths of the prompts that are read, one test each."""
    generate_tokens: int = 128
    """Tokens of the generation test; 0 leaves it out."""
    repetitions: int = 5
    """Measured runs of each test."""
    points: tuple[OperatingPoint | None, ...] = (None,)
    """Operating points, one set of tests each; those that select visual tokens need an image."""
    image: Path | None = None
    """Adds a test of the whole way from an image to the first token."""
    seed: int = 0
    """Seed of the prompts' tokens."""

    def __post_init__(self) -> None:
        for num_tokens in self.prompt_tokens:
            if num_tokens < 1:
                raise InputError(f"prompt_tokens is {num_tokens}; accepted: 1 or more")
        if self.generate_tokens < 0 or self.generate_tokens == 1:
            raise InputError(
                f"generate_tokens is {self.generate_tokens}; accepted: 2 or more, or 0 for none"
            )
        if self.repetitions < 1:
            raise InputError(f"repetitions is {self.repetitions}; accepted: 1 or more")
        if self.image is None and any(point and point.selector for point in self.points):
            raise InputError("a selector is named but no image; accepted: a selector with --image")


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchRow:
    """One test at one operating point."""

    test: str
    point: OperatingPoint | None
    prompt_tokens: int
    completion_tokens: int
    tokens_per_s: tuple[float, ...]
    """One value per repetition: tokens read over prefill, or tokens written over decode."""
    ttft_ms: tuple[float, ...]
    """Time to the first token, one value per repetition."""

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON-ready values, with means and standard deviations."""
        return {
            **asdict(self),
            "tokens_per_s_mean": fmean(self.tokens_per_s),
            "tokens_per_s_stddev": spread(self.tokens_per_s),
            "ttft_ms_mean": fmean(self.ttft_ms),
            "ttft_ms_stddev": spread(self.ttft_ms),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Test:
    name: str
    point: OperatingPoint | None
    num_prompt_tokens: int
    max_tokens: int


def run_bench(
    model: Model,
    config: BenchConfig,
    *,
    vocab_size: int,
    progress: Callable[[str, float], None] | None = None,
) -> tuple[BenchRow, ...]:
    """Every test of `config` on `model`, in order; prompts are random tokens below `vocab_size`."""
    tests = tuple(_tests(config))
    generator = np.random.default_rng(config.seed)
    image = None if config.image is None else read_image(config.image)
    rows = []
    for position, test in enumerate(tests):
        if progress:
            progress(test.name, position / len(tests))
        answers = []
        for repetition in range(config.repetitions + 1):
            if test.num_prompt_tokens:
                prompt = generator.integers(vocab_size, size=test.num_prompt_tokens).tolist()
                answer = _ask_tokens(model, prompt, test)
            else:
                assert image is not None, "image tests exist only where an image was given"
                answer = _ask_image(model, altered(image, repetition), test)
            answers.append(answer)
        rows.append(_row(test, answers[1:]))
    return tuple(rows)


def altered(image: npt.NDArray[np.uint8], repetition: int) -> npt.NDArray[np.uint8]:
    """The image with one corner pixel changed, so that no cache has seen it."""
    copy = np.array(image, copy=True)
    copy[0, 0] = repetition % 256
    return copy


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """uint8 [H, W, 3]; raises InputError where the file is no image."""
    try:
        with Image.open(path) as image:
            return np.array(image.convert("RGB"), dtype=np.uint8)
    except OSError as error:
        raise InputError(f"image is {str(path)!r}, which cannot be read: {error}") from error


def spread(values: tuple[float, ...]) -> float:
    """Sample standard deviation; 0 of a single value."""
    return stdev(values) if len(values) > 1 else 0.0


def _tests(config: BenchConfig) -> Iterator[_Test]:
    for point in config.points:
        if point is None or point.selector is None:
            for num_tokens in config.prompt_tokens:
                yield _Test(
                    name=f"pp{num_tokens}",
                    point=point,
                    num_prompt_tokens=num_tokens,
                    max_tokens=1,
                )
            if config.generate_tokens:
                yield _Test(
                    name=f"tg{config.generate_tokens}",
                    point=point,
                    num_prompt_tokens=1,
                    max_tokens=config.generate_tokens,
                )
        if config.image is not None:
            yield _Test(name="image", point=point, num_prompt_tokens=0, max_tokens=1)


def _ask_tokens(model: Model, prompt: list[int], test: _Test) -> Answer:
    return model.generate(prompt, max_tokens=test.max_tokens, ignore_eos=True, point=test.point)


def _ask_image(model: Model, image: npt.NDArray[np.uint8], test: _Test) -> Answer:
    return model.generate(
        IMAGE_QUESTION,
        images=[image],
        max_tokens=test.max_tokens,
        ignore_eos=True,
        point=test.point,
    )


def _row(test: _Test, answers: list[Answer]) -> BenchRow:
    usage = answers[0].usage
    return BenchRow(
        test=test.name,
        point=test.point,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        tokens_per_s=tuple(_tokens_per_s(answer, test) for answer in answers),
        ttft_ms=tuple(answer.timings.ttft_ms for answer in answers),
    )


def _tokens_per_s(answer: Answer, test: _Test) -> float:
    # The first token comes out of the prefill, so n tokens take n - 1 steps of decoding.
    if test.max_tokens > 1:
        return (answer.usage.completion_tokens - 1) * 1000 / answer.timings.decode_ms
    # Visual tokens that a selector dropped were never read.
    usage = answer.usage
    read = usage.prompt_tokens - usage.visual_tokens + usage.visual_tokens_kept
    return read * 1000 / answer.timings.prefill_ms
