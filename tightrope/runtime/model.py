"""A loaded bundle that answers: the public face of the runtime."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from tightrope.budget import Budget
from tightrope.bundle import Bundle
from tightrope.checks import check_share, check_type, check_whole
from tightrope.configs import default_of
from tightrope.errors import InputError
from tightrope.point import OperatingPoint
from tightrope.runtime.answer import Answer
from tightrope.runtime.backends import create_backend
from tightrope.runtime.ceiling import Ceiling
from tightrope.runtime.chat import Chat
from tightrope.runtime.compared import Compared, compared
from tightrope.runtime.count import Count, count
from tightrope.runtime.frames import place_frames, prompt_ids
from tightrope.runtime.heat import heat_of
from tightrope.runtime.kept import IMAGE_BYTES, PREFIX_BYTES
from tightrope.runtime.live import keep_times
from tightrope.runtime.loaded import Loaded
from tightrope.runtime.options import Frames, ImageSource, Options, Prompt
from tightrope.runtime.planners import planner_of
from tightrope.runtime.shadow import Shadow
from tightrope.runtime.stream import Stream, start
from tightrope.runtime.warm_up import get_ready, warm_up

if TYPE_CHECKING:
    from tightrope.jetson.telemetry import Telemetry
    from tightrope.latency import LatencyModel
    from tightrope.live_file import Entry, LiveRequest
    from tightrope.runtime.backends import Backend
    from tightrope.runtime.loaded import Baselines


def load(
    path: str | os.PathLike[str],
    backend: str = "auto",
    threads: int | None = None,
    *,
    image_bytes: int = IMAGE_BYTES,
    prefix_bytes: int = PREFIX_BYTES,
    live: bool = True,
    shadow: float = 0.0,
    ceiling: Ceiling | None = None,
) -> Model:
    """The bundle in folder `path`, ready to answer.

    backend: auto, onnxruntime, onnxruntime-cuda or tensorrt; `Answer.backend` says which ran.
    threads: of the CPU; None lets the backend choose.
    image_bytes, prefix_bytes: most memory for what images and beginnings of prompts left behind,
    kept for requests that bring them again; see docs/reuse.md.
    live: whether the times of requests are kept in the state folder, and planned by.
    shadow: share of the pruned requests, 0..1, that are answered again without pruning while
    nothing else is asked; how often both agree is kept.
    ceiling: over the board's heat and power, which requests with a budget keep by cheaper points;
    DeviceUnavailable where no sensor tells of what it limits.
    Raises BundleError, BackendError and DeviceUnavailable; nothing falls back in silence.
    """
    check_type("live", live, bool, "True or False")
    check_share("shadow", shadow)
    if shadow and not live:
        raise InputError("shadow keeps its agreement beside the times; accepted: live=True with it")
    bundle = Bundle.open(path)
    model = Model(
        bundle,
        create_backend(backend, bundle, threads),
        image_bytes=image_bytes,
        prefix_bytes=prefix_bytes,
    )
    model._loaded.heat = heat_of(ceiling, model.telemetry)
    if live:
        model._keep_times(shadow)
    return model


class Model:
    """A bundle on a backend; requests may come from any thread, the device's own runs them."""

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        clock: Callable[[], float] = time.perf_counter,
        selectors: Baselines | None = None,
        image_bytes: int = IMAGE_BYTES,
        prefix_bytes: int = PREFIX_BYTES,
    ) -> None:
        """clock: seconds, ascending, by which answers are timed; tests script it.

        selectors: further ways to select visual tokens on the host, by name.
        image_bytes, prefix_bytes: as for `load`.
        """
        check_whole("image_bytes", image_bytes, least=0, unit="bytes")
        check_whole("prefix_bytes", prefix_bytes, least=0, unit="bytes")
        self._loaded = Loaded(bundle, backend, clock, selectors, image_bytes, prefix_bytes)

    def _keep_times(self, shadow: float) -> None:
        loaded = self._loaded
        ring = keep_times(loaded)
        if shadow:
            loaded.watchers.append(Shadow(loaded, ring, shadow))

    @property
    def bundle(self) -> Bundle:
        """What answers."""
        return self._loaded.bundle

    @property
    def backend(self) -> Backend:
        """What it runs on."""
        return self._loaded.backend

    @property
    def telemetry(self) -> Telemetry | None:
        """What looks at the board's sensors; None where there are none."""
        return self._loaded.telemetry

    def generate(
        self,
        prompt: Prompt,
        images: Sequence[ImageSource] = (),
        *,
        frames: Frames = (),
        max_tokens: int = default_of(Options, "max_tokens"),
        temperature: float = default_of(Options, "temperature"),
        top_p: float = default_of(Options, "top_p"),
        top_k: int = default_of(Options, "top_k"),
        min_p: float = default_of(Options, "min_p"),
        repetition_penalty: float = default_of(Options, "repetition_penalty"),
        presence_penalty: float = default_of(Options, "presence_penalty"),
        frequency_penalty: float = default_of(Options, "frequency_penalty"),
        logit_bias: Mapping[int, float] | None = None,
        logprobs: int | None = None,
        n: int = default_of(Options, "n"),
        seed: int = default_of(Options, "seed"),
        stop: Sequence[str] | None = None,
        thinking: bool | None = None,
        budget: Budget | None = None,
        point: OperatingPoint | None = None,
        ignore_eos: bool = False,
    ) -> Answer:
        """The answer to `prompt`.

        prompt: a question (the chat template is applied), token ids (taken as they are), or
        messages {"role", "content"}.
        images: paths, encoded bytes, PIL images or uint8 [H,W,3]; they stand where the
        placeholder stands, else first.
        frames: of a clip, pairs (seconds, image); they stand where a message has {"type": "video"},
        else before the text of the user's first message.
        temperature 0 is greedy. top_k, top_p, min_p: which tokens are sampled from. Penalties and
        logit_bias, by token id, change logits before (`penalties.py`).
        logprobs: tell how likely tokens were, and so many of the likeliest ones beside each.
        n: answers to one prefill, each from its own random stream.
        stop: strings that end the answer and are not part of it.
        thinking: whether the model thinks before it answers; None leaves it to the chat template.
        budget: limits by which the point is planned; the answer's `plan` says what was chosen.
        point: what is spent, instead of a plan.
        Raises InputError for what cannot be answered and BudgetUnreachable for limits that cannot
        be met, before anything runs; ProfileError for a budget where no latency was measured.
        """
        options = Options(
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            presence_penalty=presence_penalty,
            frequency_penalty=frequency_penalty,
            logit_bias=logit_bias,
            logprobs=logprobs,
            n=n,
            seed=seed,
            stop=stop,
            thinking=thinking,
            budget=budget,
            point=point,
            ignore_eos=ignore_eos,
        )
        return self._start(prompt, images, frames, options).answer()

    def stream(
        self,
        prompt: Prompt,
        images: Sequence[ImageSource] = (),
        *,
        frames: Frames = (),
        max_tokens: int = default_of(Options, "max_tokens"),
        temperature: float = default_of(Options, "temperature"),
        top_p: float = default_of(Options, "top_p"),
        top_k: int = default_of(Options, "top_k"),
        min_p: float = default_of(Options, "min_p"),
        repetition_penalty: float = default_of(Options, "repetition_penalty"),
        presence_penalty: float = default_of(Options, "presence_penalty"),
        frequency_penalty: float = default_of(Options, "frequency_penalty"),
        logit_bias: Mapping[int, float] | None = None,
        logprobs: int | None = None,
        seed: int = default_of(Options, "seed"),
        stop: Sequence[str] | None = None,
        thinking: bool | None = None,
        budget: Budget | None = None,
        point: OperatingPoint | None = None,
        ignore_eos: bool = False,
    ) -> Stream:
        """The answer as it grows: an iterator of pieces, whose last one carries the answer.

        Arguments as for `generate`. Pieces are whole characters; joined they are `answer.text`.
        """
        options = Options(
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            presence_penalty=presence_penalty,
            frequency_penalty=frequency_penalty,
            logit_bias=logit_bias,
            logprobs=logprobs,
            seed=seed,
            stop=stop,
            thinking=thinking,
            budget=budget,
            point=point,
            ignore_eos=ignore_eos,
        )
        return self._start(prompt, images, frames, options)

    def count(
        self,
        prompt: Prompt,
        images: Sequence[ImageSource] = (),
        *,
        frames: Frames = (),
        max_tokens: int = default_of(Options, "max_tokens"),
        thinking: bool | None = None,
        budget: Budget | None = None,
        point: OperatingPoint | None = None,
    ) -> Count:
        """What `generate` would spend on these arguments: tokens, slots, bytes, predicted time.

        Nothing is computed, and of images the headers alone are read. With a budget the point is
        the one that would be planned now, and its plan is told.
        Raises as `generate` does.
        """
        options = Options(max_tokens=max_tokens, thinking=thinking, budget=budget, point=point)
        prompt, images = self._placed(prompt, images, frames)
        return count(self._loaded, prompt, images, options)

    def compared(
        self, latency: LatencyModel, entries: Sequence[Entry[LiveRequest]]
    ) -> tuple[list[Compared], dict[str, int]]:
        """Requests that were kept, beside what `latency` says of each; see `runtime.compared`."""
        return compared(self._loaded, latency, entries)

    def warm_up(self, task: str | None = None) -> None:
        """Get ready for budgets: read what was measured, and call every graph once.

        task: as in Budget. The first request with a budget does it if nobody did, before its clock
        starts. Raises ProfileError where no latency was measured, and for an unknown task.
        """
        warm_up(self._loaded, planner_of(self._loaded, task))

    def _start(
        self, prompt: Prompt, images: Sequence[ImageSource], frames: Frames, options: Options
    ) -> Stream:
        prompt, images = self._placed(prompt, images, frames)
        get_ready(self._loaded, options)
        return start(self._loaded, prompt, images, options)

    def _placed(
        self, prompt: Prompt, images: Sequence[ImageSource], frames: Frames
    ) -> tuple[Prompt, Sequence[ImageSource]]:
        return place_frames(prompt, images, frames, self._loaded.manifest.vision)

    def chat(self, system: str | None = None) -> Chat:
        """A conversation that keeps its slots between turns."""
        return Chat(self._loaded, system)

    def forget_images(self) -> None:
        """Compute every image anew, as if none had been seen: whoever measures asks for it."""
        if self._loaded.vision is not None:
            self._loaded.vision.kept.clear()

    def forget_prefixes(self) -> None:
        """Read every prompt from its start, as if none had begun like it."""
        self._loaded.prefixes.kept.clear()

    def token_ids(
        self,
        prompt: Prompt,
        num_images: int = 0,
        thinking: bool | None = None,
        point: OperatingPoint | None = None,
        frames: Frames = (),
    ) -> list[int]:
        """Token ids of `prompt`, one placeholder per image and frame, as `generate` reads it.

        Raises InputError for what is no prompt, and for a choice that the template does not offer.
        """
        cap = None if point is None else point.thinking_tokens
        prompt, images = self._placed(prompt, [b""] * num_images, frames)
        return prompt_ids(self._loaded.language, prompt, images, thinking, cap)
