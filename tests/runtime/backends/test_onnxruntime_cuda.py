"""The backend for a GPU: run whole on the CPU, and held to the device that it was told.

A GPU is not needed: what is done on one differs from this in the device's name alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

pytest.importorskip("torch", reason="exporting needs torch")

from tightrope.bundle import Bundle
from tightrope.errors import BackendError
from tightrope.point import OperatingPoint
from tightrope.runtime.backends.onnxruntime_cuda import PROVIDERS, StandardGraphs
from tightrope.runtime.model import Model

Find = Callable[[str], Path]


def model_of(path: Path) -> Model:
    bundle = Bundle.open(path)
    return Model(bundle, StandardGraphs(bundle, 1, "cpu"))


@pytest.mark.parametrize(
    "point",
    [
        OperatingPoint(),
        OperatingPoint(selector="divprune", keep=4, policy="h2o", kv_budget=40, recent=4),
        OperatingPoint(selector="fastv", keep=6),
    ],
)
def test_it_answers_as_the_hosts_graphs_do(
    point: OperatingPoint, bundle: Find, loaded: Callable[[str], Model]
) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (56, 56, 3), np.uint8)
    options: dict[str, Any] = {"max_tokens": 12, "ignore_eos": True, "point": point, "logprobs": 3}
    ours = model_of(bundle("llava")).generate("what is this ?", images=[picture], **options)
    theirs = loaded("llava").generate("what is this ?", images=[picture], **options)
    assert ours.token_ids == theirs.token_ids
    assert ours.backend == "onnxruntime-cuda" and ours.usage == theirs.usage


def test_several_answers_to_one_prompt_and_a_second_turn(bundle: Find) -> None:
    model = model_of(bundle("llama-fp16"))
    answers = model.generate("a b c", n=2, temperature=0.7, max_tokens=4, seed=1, ignore_eos=True)
    assert answers.samples is not None and len(answers.samples) == 2
    chat = model.chat()
    chat.ask("a b", max_tokens=3)
    assert chat.ask("c", max_tokens=3).usage.cached_tokens > 0


def test_where_slots_do_not_suffice_for_a_call_it_says_so(bundle: Find) -> None:
    opened = Bundle.open(bundle("llama"))
    model = Model(opened, StandardGraphs(opened, 1, "cpu"))
    ids = [5] * (opened.manifest.slots + 40)
    with pytest.raises(BackendError, match=r"no room for \d+ more tokens.*--slots"):
        model.generate(ids, max_tokens=1, point=OperatingPoint(policy="streaming", kv_budget=2048))


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_silent_fall_back_to_the_cpu_is_an_error(bundle: Find) -> None:
    """This ONNX Runtime has no CUDA, and takes the CPU with a warning."""
    assert PROVIDERS["cuda"] not in onnxruntime.get_available_providers()
    with pytest.raises(BackendError, match=r"CPUExecutionProvider where CUDAExecutionProvider"):
        StandardGraphs(Bundle.open(bundle("llama")))


def test_all_that_a_graph_reads_is_put_on_the_gpu_and_bound_there(
    bundle: Find, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that says it runs on CUDA, and arrays that are noted before they go to it."""
    placed: list[tuple[str, int]] = []
    wanted: list[list[str]] = []
    real_session, real_value = onnxruntime.InferenceSession, onnxruntime.OrtValue

    class OnCuda:
        def __init__(self, file: str, options: Any, providers: list[str]) -> None:
            wanted.append(providers)
            self._real = real_session(file, options, providers=[PROVIDERS["cpu"]])

        def get_providers(self) -> list[str]:
            return [PROVIDERS["cuda"], PROVIDERS["cpu"]]

        def run(self, *_: Any) -> None:
            raise AssertionError("without binding, inputs would be copied by ONNX Runtime")

        def __getattr__(self, name: str) -> Any:
            return getattr(self._real, name)

    class Placed:
        @staticmethod
        def ortvalue_from_numpy(array: Any, device: str, number: int) -> Any:
            placed.append((device, number))
            return real_value.ortvalue_from_numpy(array)

    monkeypatch.setattr(onnxruntime, "InferenceSession", OnCuda)
    monkeypatch.setattr(onnxruntime, "OrtValue", Placed)
    opened = Bundle.open(bundle("llama"))
    answer = Model(opened, StandardGraphs(opened, 1)).generate("a b", max_tokens=3, ignore_eos=True)
    assert len(answer.token_ids) == 3
    assert wanted == [[PROVIDERS["cuda"]]] * 2, "prefill and decode"
    assert set(placed) == {("cuda", 0)}
