"""The backend on the fake driver: everything is real but the engines and the chip.

    python backend_cases.py LIBRARY CURAND BUNDLE IMAGE FEW [CASE...]

prints as one line of JSON what came of each case. A process of its own because whoever looks for
a CUDA driver or TensorRT in it finds the fake ones.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

import numpy as np

LIBRARY, CURAND, BUNDLE, IMAGE, FEW, *WANTED = sys.argv[1:]
fake = ctypes.CDLL(LIBRARY, ctypes.RTLD_GLOBAL)
ctypes.CDLL(CURAND, ctypes.RTLD_GLOBAL)
sys.setdlopenflags(os.RTLD_LAZY)  # pycuda names many functions that nobody here calls
import asked  # type: ignore[import-not-found]  # noqa: E402
import fake_tensorrt  # type: ignore[import-not-found]  # noqa: E402
import plugin_calls  # type: ignore[import-not-found]  # noqa: E402
from asked import ask, ask_all, probabilities  # noqa: E402
from kernel_bodies import register  # type: ignore[import-not-found]  # noqa: E402
from storage_lives import live  # type: ignore[import-not-found]  # noqa: E402

fake.fake_said.restype = ctypes.c_char_p
fake.fake_held.restype = ctypes.c_size_t
fake_tensorrt.cuda = fake
sys.modules["tensorrt"] = fake_tensorrt
register(fake)

from tightrope.bundle import Bundle  # noqa: E402
from tightrope.errors import TightropeError  # noqa: E402
from tightrope.interface.calls import Call  # noqa: E402
from tightrope.interface.names import GraphName, Role  # noqa: E402
from tightrope.interface.tensors import KV_CACHES, Dims  # noqa: E402
from tightrope.runtime.backends.tensorrt import backend as backend_file  # noqa: E402
from tightrope.runtime.backends.tensorrt.arena import SlotMemory  # noqa: E402
from tightrope.runtime.backends.tensorrt.backend import TensorRTBackend  # noqa: E402
from tightrope.runtime.backends.tensorrt.driver import Device, Graph  # noqa: E402
from tightrope.runtime.backends.tensorrt.engines import profiles_of  # noqa: E402
from tightrope.runtime.backends.tensorrt.versions import load_tensorrt  # noqa: E402
from tightrope.runtime.cancel import Cancel  # noqa: E402
from tightrope.runtime.model import Model  # noqa: E402
from tightrope.runtime.slots import Slots  # noqa: E402

bundle = Bundle.open(BUNDLE)
SLOT_BYTES = 1 << 28
SAMPLED: dict[str, dict[str, Any]] = {
    "greedy": {},
    "the likeliest five": {"temperature": 1.0, "top_k": 5, "top_p": 0.9},
    "everything": {"temperature": 1.0},
    "penalties": {"repetition_penalty": 1.1},
    "a bias": {"logit_bias": {7: 1.0}},
    "logprobs": {"logprobs": 2},
}


class CountingDevice(Device):
    """Counts what was replayed and captured, and rows of logits that were copied whole."""

    replayed = captured = whole = 0

    def download(self, array: Any, address: int) -> None:
        logits = array.dtype == np.float32 and array.shape == (1, bundle.manifest.dims.vocab_size)
        self.whole += logits
        super().download(array, address)

    def replay(self, graph: Graph) -> None:
        self.replayed += 1
        super().replay(graph)

    def capturing(self) -> Any:
        self.captured += 1
        return super().capturing()


def plan_of(graph: GraphName, version: str = fake_tensorrt.__version__) -> memoryview:
    profiles = profiles_of(bundle.manifest, graph)
    ranges = {axis: [n for each in profiles for n in each[axis]] for axis in profiles[0]}
    plan = {"graph": str(bundle.graph(graph)), "version": version, "ranges": ranges}
    return memoryview(json.dumps(plan).encode())


class Plans:
    """Engines of all graphs, but for those that a test puts in their place."""

    def __init__(
        self, alone: bool = False, prefill: memoryview | None = None, plugins: bool = False
    ) -> None:
        self.alone, self._prefill, self._plugins = alone, prefill, plugins

    def graph(self, role: Role, method: str = "") -> GraphName:
        if self._plugins and role in ("prefill", "decode"):
            return GraphName("plugins", "decoder", method)
        return GraphName("standard", role, method)

    def plan(self, graph: GraphName) -> memoryview:
        assert not (self.alone and graph.role == "decode")
        if graph.role == "prefill" and self._prefill is not None:
            return self._prefill
        return plan_of(graph)


def backend(
    plans: Plans | None = None, slot_bytes: int = SLOT_BYTES
) -> tuple[TensorRTBackend, CountingDevice]:
    device, trt = CountingDevice(), load_tensorrt()
    made = TensorRTBackend(bundle.manifest, trt, device, plans or Plans(), slot_bytes)
    return made, device


def answers(alone: bool = False) -> Any:
    made, device = backend(Plans(alone))
    model = Model(bundle, made)
    told = ask_all(model, IMAGE, int(FEW))
    told["counts"] = [device.captured, device.replayed]
    told["second time"] = ask(model, [IMAGE])
    told["captured again"] = device.captured - told["counts"][0]
    return told


def captured() -> Any:
    return answers()


def uncaptured() -> Any:
    os.environ["TIGHTROPE_CAPTURE"] = "0"
    try:
        return answers()
    finally:
        del os.environ["TIGHTROPE_CAPTURE"]


def prefill_alone() -> Any:
    return answers(alone=True)


def large_vocabulary() -> Any:
    """Inside, a backend leaves logits on the device, however few they are."""
    return mock.patch.object(backend_file, "LARGE_VOCABULARY", 1)


def reduced() -> Any:
    with large_vocabulary():
        return answers()


def logits_that_leave_the_device() -> Any:
    """Rows that are copied for an answer of nine tokens, by how it is sampled."""
    with large_vocabulary():
        made, device = backend()
    model, ids = Model(bundle, made), [9, 8, 7, 6]
    copied = {}
    for name, options in SAMPLED.items():
        before = device.whole
        model.generate(ids, max_tokens=9, ignore_eos=True, seed=2, **options)
        copied[name] = device.whole - before
    return copied


def with_plugins() -> Any:
    """Answers of engines whose graphs have own ops, and how often a step was captured."""
    made, device = backend(Plans(plugins=True))
    model = Model(bundle, made)
    told = asked.few(model, IMAGE, int(FEW))
    held = made.make_storage(1, np.full(bundle.manifest.dims.num_hidden_layers, 64)).nbytes
    return [told, device.captured > 0, held]


def a_plugin_queues_its_kernels() -> Any:
    """On a stream that somebody else made; then what it says where a kernel is not there."""
    return plugin_calls.queued(Device(), fake)


def opened_by_name() -> Any:
    """The engines that were built for this board, and what the self-test says of each."""
    from tightrope.jetson.facts import facts_here
    from tightrope.runtime.backends.tensorrt.cache import EngineCache
    from tightrope.runtime.backends.tensorrt.engines import BuildOptions, keys_of
    from tightrope.runtime.model import load
    from tightrope.runtime.selftest.check import check
    from tightrope.state import state_folder

    cache, facts = EngineCache(state_folder(bundle.path)), facts_here(fake_tensorrt.__version__)
    for graph, key in keys_of(bundle, facts, BuildOptions()):
        cache.store(key, bytes(plan_of(graph)), seconds=0.0, alone=False)
    model = load(BUNDLE, "tensorrt", live=False)
    failed = [str(finding) for finding in check(bundle, model.backend) if not finding.passed]
    return [model.backend.name, ask(model, [IMAGE]), failed]


def nothing_is_left() -> Any:
    """Bytes held while a model answers, and when it is dropped, beyond those held before."""
    before = fake.fake_held()
    made, device = backend()
    model = Model(bundle, made)
    ask(model, [IMAGE])
    during = fake.fake_held() - before
    del model, made
    gc.collect()
    with device:
        device.collect()
    return [during > 100_000, fake.fake_held() - before]


def no_thread_keeps_the_context() -> Any:
    made, _ = backend()
    ask(Model(bundle, made), [])
    return fake.cuCtxSynchronize()


def more_answers_than_an_engine_was_built_for() -> Any:
    made, _ = backend()
    Model(bundle, made).generate("?", max_tokens=4, n=5, temperature=1.0, ignore_eos=True)


def more_slots_than_the_memory_plan_has() -> Any:
    made, _ = backend(slot_bytes=40_000)
    ask(Model(bundle, made), [IMAGE])


def no_memory_on_the_device() -> Any:
    made, _ = backend()
    fake.fake_limit(ctypes.c_size_t(fake.fake_held() + 1000))
    try:
        ask(Model(bundle, made), [IMAGE])
    finally:
        fake.fake_limit(ctypes.c_size_t(1 << 40))


def call_of(start: int, length: int) -> Call:
    """Tokens without content at these ordinals, which keep the newest 64."""
    dims = bundle.manifest.dims
    places = np.arange(start, start + length)[None]
    return Call(
        np.ones((1, length, dims.hidden_size), np.float32),
        places.astype(np.int32),
        places,
        np.full((dims.num_hidden_layers, dims.num_key_value_heads), 64),
        np.tile(np.array([1, 0, 1, 0, 1, 0, 4, 8], np.float32), (dims.num_hidden_layers, 1)),
    )


def slots_given_up_inside_a_call() -> Any:
    made, _ = backend()
    slots = Slots(bundle.manifest.dims, 1, made.make_storage)
    made.prefill(slots, call_of(0, 65), Cancel())


def an_update_can_be_read() -> Any:
    """Whether what a call says of positions and keys is what the slots hold after the commit."""
    made, _ = backend()
    slots = Slots(bundle.manifest.dims, 1, made.make_storage)
    alike = []
    for start, length in ((0, 5), (5, 1)):
        call = call_of(start, length)
        run: Any = made.decode if length == 1 else partial(made.prefill, cancel=Cancel())
        _, update = run(slots, call)
        told, keys = update.next_position.numpy(), update.key.numpy()
        slots.commit(update)
        new = slots.views().keys[1][:, :, start : start + length]
        alike += [np.array_equal(told, slots.position), np.array_equal(keys[1], new)]
    return alike


def halves() -> Any:
    """Likely tokens of a graph in float16, with their log-probabilities."""
    made, _ = backend()
    return probabilities(Model(bundle, made))


def a_damaged_plan() -> Any:
    backend(Plans(prefill=memoryview(b"ELF")))


def a_plan_of_another_tensorrt() -> Any:
    backend(Plans(prefill=plan_of(GraphName("standard", "prefill"), "11.4.0")))


def a_plan_of_another_graph() -> Any:
    backend(Plans(prefill=plan_of(GraphName("standard", "decode"))))


def a_graph_that_cannot_be_captured() -> Any:
    made, _ = backend()
    fake_tensorrt.can_be_captured = False
    try:
        ask(Model(bundle, made), [])
    finally:
        fake_tensorrt.can_be_captured = True


def the_device_fails() -> Any:
    """A kernel that fails fails the call that waits for it, with what the driver says."""
    made, device = backend()
    model = Model(bundle, made)
    ask(model, [])
    with device:
        memory = device.allocate(64, "a test")
        device.download(np.empty(64, np.uint8), memory.address)
        device.wait()


def storages_do_alike() -> Any:
    """Random lives of slots on the device and on the host; the places where they differ."""
    dims = Dims(
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=4,
        hidden_size=16,
        vocab_size=32,
    )
    device, half = Device(), np.dtype(np.float16)
    return {
        kv_cache: [
            live(Slots, SlotMemory(device, dims, half, 1 << 24, kv_cache), device, seed)
            for seed in range(12)
        ]
        for kv_cache in KV_CACHES
    }


CASES: tuple[Callable[[], Any], ...] = (
    captured,
    uncaptured,
    prefill_alone,
    reduced,
    logits_that_leave_the_device,
    with_plugins,
    a_plugin_queues_its_kernels,
    opened_by_name,
    nothing_is_left,
    no_thread_keeps_the_context,
    more_answers_than_an_engine_was_built_for,
    more_slots_than_the_memory_plan_has,
    no_memory_on_the_device,
    slots_given_up_inside_a_call,
    a_damaged_plan,
    a_plan_of_another_tensorrt,
    a_plan_of_another_graph,
    a_graph_that_cannot_be_captured,
    an_update_can_be_read,
    storages_do_alike,
    halves,
    the_device_fails,  # the last one: its stream stays failed
)


def main() -> None:
    told: dict[str, Any] = {}
    for case in CASES:
        if WANTED and case.__name__ not in WANTED:
            continue
        fake_tensorrt.failures.clear()
        try:
            told[case.__name__] = case()
        except TightropeError as error:
            told[case.__name__] = f"{type(error).__name__}: {error}"
        if fake_tensorrt.failures:
            told[case.__name__] = fake_tensorrt.failures
    print(json.dumps(told))


if __name__ == "__main__":
    main()
