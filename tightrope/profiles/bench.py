"""Speed of a bundle on this machine, test by test: prompt processing, generation, an image's way.

Tests are named as in llama-bench: pp512 reads 512 tokens, tg128 generates 128. Each is run once
unmeasured, then `repetitions` times; every repetition reads other tokens and another image, so
that nothing is answered from a cache of an earlier one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tightrope.arrays import Pixels
from tightrope.point import OperatingPoint
from tightrope.profiles.bench_config import BenchConfig
from tightrope.profiles.measure import Request, measure
from tightrope.profiles.samples import Samples
from tightrope.progress import Progress, part, silent
from tightrope.runtime.images import load_image

if TYPE_CHECKING:
    from tightrope.runtime.answer import Answer
    from tightrope.runtime.model import Model
    from tightrope.runtime.options import Prompt

IMAGE_QUESTION = "Describe the image."


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchRow:
    """One test at one operating point."""

    test: str
    point: OperatingPoint | None
    prompt_tokens: int
    completion_tokens: int
    tokens_per_s: Samples
    """One value per repetition: tokens read over prefill, or tokens written over decode."""
    ttft_ms: Samples
    """Time to the first token, one value per repetition."""

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON-ready values, with means and standard deviations."""
        return {
            **asdict(self),
            "tokens_per_s": self.tokens_per_s.values,
            "ttft_ms": self.ttft_ms.values,
            "tokens_per_s_mean": self.tokens_per_s.mean,
            "tokens_per_s_stddev": self.tokens_per_s.stddev,
            "ttft_ms_mean": self.ttft_ms.mean,
            "ttft_ms_stddev": self.ttft_ms.stddev,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Test:
    name: str
    point: OperatingPoint | None
    num_prompt_tokens: int
    """0: a question about the image."""
    max_tokens: int


def run_bench(
    model: Model, config: BenchConfig, *, vocab_size: int, progress: Progress = silent
) -> tuple[BenchRow, ...]:
    """Every test of `config` on `model`, in order; prompts are random tokens below `vocab_size`."""
    tests = tuple(_tests(config))
    generator = np.random.default_rng(config.seed)
    image = None if config.image is None else np.asarray(load_image(config.image))
    runs = 1 + config.repetitions
    rows = []
    for position, test in enumerate(tests):
        answers = measure(
            model,
            _requests(test, runs, generator, vocab_size, image),
            total=runs,
            progress=part(progress, position / len(tests), (position + 1) / len(tests)),
        )
        rows.append(_row(test, answers[1:]))
    return tuple(rows)


def altered(image: Pixels, repetition: int) -> Pixels:
    """The image with one corner pixel changed, so that no cache has seen it."""
    copy = np.array(image, copy=True)
    copy[0, 0] = repetition % 256
    return copy


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


def _requests(
    test: _Test, runs: int, generator: np.random.Generator, vocab_size: int, image: Pixels | None
) -> Iterator[Request]:
    for run in range(runs):
        prompt: Prompt = IMAGE_QUESTION
        if test.num_prompt_tokens:
            prompt = generator.integers(vocab_size, size=test.num_prompt_tokens).tolist()
            images = []
        else:
            assert image is not None, "image tests exist only where an image was given"
            images = [altered(image, run)]
        yield Request(
            name=test.name,
            prompt=prompt,
            images=images,
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
        tokens_per_s=Samples(tuple(_tokens_per_s(answer, test) for answer in answers), "tokens/s"),
        ttft_ms=Samples(tuple(answer.timings.ttft_ms for answer in answers), "ms"),
    )


def _tokens_per_s(answer: Answer, test: _Test) -> float:
    # The first token comes out of the prefill, so n tokens take n - 1 steps of decoding.
    if test.max_tokens > 1:
        return (answer.usage.completion_tokens - 1) * 1000 / answer.timings.decode_ms
    # Visual tokens that a selector dropped were never read.
    usage = answer.usage
    read = usage.prompt_tokens - usage.visual_tokens + usage.visual_tokens_kept
    return read * 1000 / answer.timings.prefill_ms
