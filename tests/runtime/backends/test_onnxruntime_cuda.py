"""The backend for a GPU: run whole on the CPU, and held to the device that it was told.

A GPU is not needed: what is done on one differs from this in the device's name alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnxruntime
import pytest

pytest.importorskip("torch", reason="exporting needs torch")

from tightrope.bundle import Bundle
from tightrope.errors import BackendError
from tightrope.interface.calls import Update
from tightrope.interface.tensors import Dims
from tightrope.plugins.commit import FLOATS, body, graph_file
from tightrope.point import OperatingPoint
from tightrope.runtime.backends import onnxruntime_cuda
from tightrope.runtime.backends.bound_storage import BoundArray, BoundStorage, Place
from tightrope.runtime.backends.onnxruntime_cuda import PROVIDERS, StandardGraphs
from tightrope.runtime.model import Model
from tightrope.runtime.storage import Move, NumpyStorage

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
def test_slots_in_int8_are_refused_with_the_backends_that_hold_them(bundle: Find) -> None:
    opened = Bundle.open(bundle("llava-fp16"))
    coded = Bundle(opened.path, replace(opened.manifest, kv_cache="int8"))
    said = r"int8.* choose --backend tensorrt, or onnxruntime, .* --kv-cache float"
    with pytest.raises(BackendError, match=said):
        onnxruntime_cuda.create(coded, 1)


def test_a_silent_fall_back_to_the_cpu_is_an_error(bundle: Find) -> None:
    """This ONNX Runtime has no CUDA, and takes the CPU with a warning."""
    assert PROVIDERS["cuda"] not in onnxruntime.get_available_providers()
    with pytest.raises(BackendError, match=r"CPUExecutionProvider where CUDAExecutionProvider"):
        StandardGraphs(Bundle.open(bundle("llama")))


class OnCuda:
    """A session that says it runs on CUDA, and notes what is bound there."""

    wanted: ClassVar[list[list[str]]] = []
    bound: ClassVar[list[tuple[str, str]]] = []

    def __init__(
        self, real: Any, file: str, options: Any, providers: list[str], **more: Any
    ) -> None:
        self.wanted.append(providers)
        self._real = real(file, options, providers=[PROVIDERS["cpu"]], **more)

    def get_providers(self) -> list[str]:
        return [PROVIDERS["cuda"], PROVIDERS["cpu"]]

    def io_binding(self) -> Any:
        return Binding(self._real.io_binding())

    def run(self, *_: Any) -> None:
        raise AssertionError("without binding, inputs would be copied by ONNX Runtime")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class Binding:
    """Binds on the CPU what is said to lie on the GPU."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def bind_input(self, name: str, device: str, *about: Any) -> None:
        OnCuda.bound.append((name, device))
        self._real.bind_input(name, "cpu", *about)

    def bind_output(self, name: str, device: str, *about: Any) -> None:
        OnCuda.bound.append((name, device))
        self._real.bind_output(name, "cpu", *about)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class Placed:
    """Notes what is copied to the GPU."""

    real = onnxruntime.OrtValue
    copied: ClassVar[list[tuple[str, tuple[int, ...]]]] = []

    @classmethod
    def ortvalue_from_numpy(cls, array: Any, device: str, number: int) -> Any:
        assert number == 0
        cls.copied.append((device, array.shape))
        return cls.real.ortvalue_from_numpy(array)

    @classmethod
    def ortvalue_from_shape_and_type(cls, shape: Any, kind: Any, device: str, number: int) -> Any:
        assert (device, number) == ("cuda", 0)
        return cls.real.ortvalue_from_shape_and_type(shape, kind, "cpu", number)


def test_keys_and_values_stay_on_the_gpu_and_the_rest_is_put_there(
    bundle: Find, monkeypatch: pytest.MonkeyPatch
) -> None:
    for noted in (OnCuda.wanted, OnCuda.bound, Placed.copied):
        noted.clear()
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", partial(OnCuda, onnxruntime.InferenceSession)
    )
    monkeypatch.setattr(onnxruntime, "OrtValue", Placed)
    opened = Bundle.open(bundle("llama"))
    dims = opened.manifest.dims
    answer = Model(opened, StandardGraphs(opened, 1)).generate("a b", max_tokens=9, ignore_eos=True)
    assert len(answer.token_ids) == 9
    assert OnCuda.wanted == [[PROVIDERS["cuda"]]] * 3, "prefill, commit and decode"
    assert {device for device, _ in Placed.copied} == {"cuda"}
    of_slots = [shape for _, shape in Placed.copied if shape[-1] == dims.head_dim]
    assert len(of_slots) == 2 * dims.num_hidden_layers, "when they are made, and never again"
    places = dict(OnCuda.bound)
    assert len(set(OnCuda.bound)) == len(places), "each at one place"
    on_host = {name for name, device in places.items() if device == "cpu"}
    assert on_host == {"logits", "target", "next_score", "next_position"}
    layers = range(dims.num_hidden_layers)
    kept = {f"{name}.{layer}" for name in ("slot_key", "slot_value") for layer in layers}
    assert places.keys() - on_host == kept | {"key", "value", "slots", "new", "next"}


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_slots_that_a_graph_writes_live_as_those_of_a_host(dtype: Any) -> None:
    """Calls, gaps that are closed, copies for more rows and capacities: the same at every step."""
    dims = Dims(
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=3,
        hidden_size=12,
        vocab_size=32,
    )
    kind = np.dtype(dtype)
    commit = onnxruntime.InferenceSession(str(graph_file(kind.name)), providers=[PROVIDERS["cpu"]])
    place, rng = Place(device="cpu", dtype=kind, commit=commit), np.random.default_rng(0)
    capacity = np.array([9, 7])
    ours: Any = BoundStorage(place, dims, 1, capacity)
    theirs: Any = NumpyStorage(dims, 1, capacity, kind)
    for turn, length in enumerate((5, 1, 3, 1)):
        rows, side = theirs.views(0).score.shape[1], (turn + 1) % 2
        lanes = (2, rows, 2, length)
        target = np.full(lanes, -1, np.int32)
        for lane in np.ndindex(*lanes[:3]):
            target[lane] = rng.permutation(int(theirs.capacity[lane[0]]))[:length]
        target[rng.random(lanes) < 0.3] = -1
        key, value = rng.normal(size=(2, *lanes, 3)).astype(kind)
        score, position = theirs.views(0).score + 1, theirs.views(0).position + 1
        new: Any = [BoundArray(place.put(each)) for each in (key, value)]
        ours.write(Update(new[0], new[1], target, score, position), side)
        theirs.write(Update(key, value, target, score, position), side)
        if turn == 1:
            order = np.sort(rng.permuted(np.tile(np.arange(7), (1, 2, 1)), axis=2)[..., :4])
            moves = [Move(1, order, order != order.max())]
            for storage in (ours, theirs):
                storage.compact(side, moves)
        if turn == 2:
            ours, theirs = (each.copied(3, np.array([12, 8]), side) for each in (ours, theirs))
            side = 0
        assert ours.nbytes == theirs.nbytes
        for mine, other in zip(parts(ours, side), parts(theirs, side), strict=True):
            np.testing.assert_array_equal(mine, other)


def parts(storage: Any, side: int) -> list[Any]:
    views = storage.views(side)
    return [*views.keys, *views.values, views.score, views.position]


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_graph_that_commits_is_what_its_source_makes(dtype: str, tmp_path: Path) -> None:
    body.main(tmp_path)
    shipped = graph_file(dtype)
    assert (tmp_path / shipped.name).read_bytes() == shipped.read_bytes()
