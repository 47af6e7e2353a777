"""The TensorRT backend with real pycuda and real cuda-bindings, on the fake driver.

In place of each engine ONNX Runtime runs the standard graph that it would be built from.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tightrope.bundle import Bundle
from tightrope.errors import DeviceUnavailable
from tightrope.runtime.backends.tensorrt import driver, versions
from tightrope.runtime.model import Model

HERE = Path(__file__).parents[2] / "tensorrt"
IMAGE = str(HERE.parent / "data" / "scenes" / "images" / "00001.png")
FEW = {"llava": 40, "llava-fp16": 40, "llava-int8-slots": 40, "llama-fp16": 40, "reference": 64}
"""Slots that are less than a prompt and its answer need."""
Tell = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def tell(
    module_of: Callable[[Path], ModuleType],
    bundle: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Tell:
    """`tell("llava", "captured")`: what came of cases of `backend_cases.py`."""
    pytest.importorskip("cuda.bindings", reason="needs cuda-bindings")
    if (compiler := shutil.which("cc")) is None:
        pytest.skip("needs a C compiler")
    pycuda = module_of(HERE / "build_pycuda.py")
    if not pycuda.folder().is_dir():
        pytest.skip("pycuda is not built here: run `make build-pycuda`")
    library = tmp_path_factory.mktemp("fake_cuda") / "libcuda.so.1"
    options = ["-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", str(library)]
    subprocess.run([compiler, *options, str(HERE / "fake_cuda.c"), "-ldl"], check=True)
    path = os.pathsep.join([str(pycuda.folder()), *filter(None, [os.environ.get("PYTHONPATH")])])

    def ask(name: str, *cases: str) -> dict[str, Any]:
        program = [sys.executable, str(HERE / "backend_cases.py"), str(library)]
        about = [str(pycuda.curand()), str(bundle(name)), IMAGE, str(FEW[name]), *cases]
        environment = {**os.environ, "PYTHONPATH": path}
        command = [*program, *about]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        told: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
        return told

    return ask


@pytest.fixture(scope="module")
def wanted(
    module_of: Callable[[Path], ModuleType], loaded: Callable[[str], Model]
) -> Callable[[str], dict[str, Any]]:
    """`wanted("llava")`: what ONNX Runtime answers with the host's graphs."""
    asked = module_of(HERE / "asked.py")
    return lambda name: json.loads(json.dumps(asked.ask_all(loaded(name), IMAGE, FEW[name])))


MODES = ("captured", "uncaptured", "prefill_alone", "reduced")


@pytest.fixture(scope="module")
def small(tell: Tell) -> dict[str, Any]:
    """Every case on the small bundle, in one process."""
    return tell("llava")


@pytest.mark.parametrize("mode", MODES)
def test_it_answers_as_onnxruntime_does(
    mode: str, small: dict[str, Any], wanted: Callable[[str], dict[str, Any]]
) -> None:
    check(small[mode], wanted("llava"), mode)


def test_it_opens_what_was_built_and_passes_the_self_test(
    small: dict[str, Any], wanted: Callable[[str], dict[str, Any]]
) -> None:
    assert small["opened_by_name"] == ["tensorrt", wanted("llava")["everything"], []]


@pytest.mark.slow
def test_it_answers_the_reference_models_questions_as_onnxruntime_does(
    tell: Tell, wanted: Callable[[str], dict[str, Any]]
) -> None:
    check(tell("reference", "captured")["captured"], wanted("reference"), "captured")


def check(told: dict[str, Any], theirs: dict[str, Any], mode: str) -> None:
    assert not isinstance(told, str), told
    counts, second, again = (told.pop(key) for key in ("counts", "second time", "captured again"))
    for name, answer in theirs.items():
        ours = told[name]
        if mode == "prefill_alone" and name not in ("three answers", "of the likeliest", "a chat"):
            # What is above the budget is given up before the next token, not behind the last one.
            (tokens, occupied), (ours, found) = answer, ours
            assert found in (occupied, occupied + 1), name
            answer = tokens
        assert ours == answer, name
    assert set(told) == set(theirs)
    captured, replayed = counts
    if mode == "uncaptured":
        assert (captured, replayed) == (0, 0)
    else:
        # A graph a side and capacity, which later requests find again.
        assert 2 <= captured < replayed / 4
        assert again == 0
    assert second[0] == told["everything"][0]


@pytest.mark.parametrize(
    ("case", "said"),
    [
        (
            "more_answers_than_an_engine_was_built_for",
            r"BackendError: standard.decode: .*its axis N is built for 1 to 4",
        ),
        ("more_slots_than_the_memory_plan_has", r"BackendError: .*memory plan has 0.0 MB for"),
        ("no_memory_on_the_device", r"BackendError: no [\d.]+ MB of (device|pinned) memory for .*"),
        ("slots_given_up_inside_a_call", r"InputError: .* slots are given up between two parts"),
        ("a_damaged_plan", r"BackendError: standard.prefill: TensorRT 10.3.0 .*magicTag"),
        ("a_plan_of_another_tensorrt", r"BackendError: .*is of version 11.4.0.*tightrope build"),
        ("a_plan_of_another_graph", r"BackendError: .*differ in kv_budget; build it again"),
        (
            "a_graph_that_cannot_be_captured",
            r"BackendError: standard.decode cannot be captured: .*capturing.*TIGHTROPE_CAPTURE=0",
        ),
        ("the_device_fails", r"BackendError: the GPU failed: .*never written"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_way_out(
    case: str, said: str, small: dict[str, Any]
) -> None:
    assert re.match(said, str(small[case])), small[case]


def test_slots_on_the_device_live_as_those_on_the_host(small: dict[str, Any]) -> None:
    assert small["storages_do_alike"] == {kind: [""] * 12 for kind in ("float", "int8")}


def test_of_a_large_vocabulary_only_what_needs_all_logits_gets_them(small: dict[str, Any]) -> None:
    """The prompt's own come whole; eight steps follow."""
    assert small["logits_that_leave_the_device"] == {
        "greedy": 1,
        "the likeliest five": 1,
        **dict.fromkeys(("everything", "penalties", "a bias", "logprobs"), 9),
    }


def test_what_a_call_leaves_on_the_device_can_be_read(small: dict[str, Any]) -> None:
    assert small["an_update_can_be_read"] == [True] * 4


def test_graphs_in_half_precision_answer_nearly_alike(
    tell: Tell, loaded: Callable[[str], Model], module_of: Callable[[Path], ModuleType]
) -> None:
    exact = module_of(HERE / "asked.py").probabilities(loaded("llama-fp16"))
    compared = 0
    for ours, theirs in zip(tell("llama-fp16", "halves")["halves"], exact, strict=True):
        for (token, found), (other, wanted) in zip(ours, theirs, strict=True):
            if token != other:
                break  # a tie, behind which they read different texts
            assert found == pytest.approx(wanted, abs=0.02)
            compared += 1
    assert compared > 9


def test_nothing_is_held_once_all_is_dropped(small: dict[str, Any]) -> None:
    assert small["nothing_is_left"] == [True, 0]


def test_no_thread_keeps_the_context(small: dict[str, Any]) -> None:
    assert small["no_thread_keeps_the_context"] == 201


def test_without_its_packages_it_says_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}")

    for module in (driver, versions):
        monkeypatch.setattr(module, "import_module", missing)
    with pytest.raises(DeviceUnavailable, match=r"pycuda.*JetPack 6.*12\.6.*JetPack 7.*13"):
        driver.Device()
    with pytest.raises(DeviceUnavailable, match=r"JetPack 6 and 7.*python3-libnvinfer"):
        versions.load_tensorrt()


@pytest.mark.parametrize(("name", "alike"), [("llava-fp16", 20), ("llava-int8-slots", 6)])
def test_engines_with_plugins_answer_as_their_graphs_do_on_the_host(
    name: str,
    alike: int,
    tell: Tell,
    bundle: Callable[[str], Path],
    module_of: Callable[[Path], ModuleType],
) -> None:
    """One engine of two profiles for prompts and tokens; slots are given up inside a call.

    alike: tokens of each answer. Of pixels the towers make what differs in its last bit, which
    int8 makes a step of.
    """
    told, captured, held = tell(name, "with_plugins")["with_plugins"]
    graphs = HERE.parent / "plugins" / "graphs"
    executor, backend = (
        module_of(graphs / f"{name}.py") for name in ("executor", "plugin_backend")
    )
    host = backend.PluginGraphs(Bundle.open(bundle(name)), executor)
    wanted = module_of(HERE / "asked.py").few(Model(host.bundle, host), IMAGE, FEW[name])
    dims, slot_bytes = host.bundle.manifest.dims, host.bundle.manifest.slot_bytes
    assert captured
    assert held == 64 * dims.num_hidden_layers * dims.num_key_value_heads * slot_bytes
    for what, (tokens, occupied) in wanted.items():
        assert (tokens[:alike], occupied) == (told[what][0][:alike], told[what][1]), what


def test_a_plugin_queues_its_kernels_on_the_stream_that_it_is_given(small: dict[str, Any]) -> None:
    waits, arrived, missing, misfit = small["a_plugin_queues_its_kernels"]
    assert waits and arrived
    assert missing.startswith("kernel missing_d2 is not compiled for sm_87")
    assert misfit.startswith("kernel commit asks for words, which its op does not have")
