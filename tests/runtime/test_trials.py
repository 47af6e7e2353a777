"""Each graph of a bundle by itself: what was recorded is met, and a wrong graph is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="exporting needs torch")

from tightrope.bundle import SELFTEST, Bundle
from tightrope.errors import BackendError, BundleError
from tightrope.runtime.backends.onnxruntime import OnnxRuntimeBackend
from tightrope.runtime.backends.onnxruntime_cuda import StandardGraphs
from tightrope.runtime.loaded import Loaded
from tightrope.runtime.model import Model
from tightrope.runtime.selftest.check import RECORDED_STEPS, Finding, check
from tightrope.runtime.selftest.record import outcomes, recorded_trials
from tightrope.runtime.selftest.trials import spread, trial_names

Find = Callable[[str], Path]
HERE = Path(__file__).parent
CALLS = ("vision", "select", "prefill", "decode")


@pytest.fixture(scope="session")
def falsified(module_of: Callable[[Path], ModuleType]) -> Callable[..., Path]:
    return module_of(HERE.parent / "falsified.py").falsified  # type: ignore[no-any-return]


def findings(path: Path) -> dict[str, Finding]:
    bundle = Bundle.open(path)
    return {found.name: found for found in check(bundle, OnnxRuntimeBackend(bundle, 1))}


def failed(path: Path) -> set[str]:
    return {name for name, finding in findings(path).items() if not finding.passed}


@pytest.mark.parametrize("name", ["llama-int4", "llava-fp16", "qwen3_vl", "smolvlm", "gemma3"])
def test_every_graph_answers_as_where_it_was_exported(name: str, bundle: Find) -> None:
    manifest = Bundle.open(bundle(name)).manifest
    found = findings(bundle(name))
    assert list(found) == [*trial_names(manifest), RECORDED_STEPS]
    assert {key: finding.detail for key, finding in found.items() if not finding.passed} == {}


def test_every_standard_graph_of_a_bundle_has_its_trial(bundle: Find) -> None:
    for name in ("llava", "llama"):
        opened = Bundle.open(bundle(name))
        graphs = {graph.partition(".")[2] for graph in opened.manifest.standard_ops}
        assert set(trial_names(opened.manifest)) == graphs


@pytest.mark.parametrize("name", ["llama-fp16", "llava-fp16", "llava"])
def test_the_standard_graphs_pass_too(name: str, bundle: Find) -> None:
    opened = Bundle.open(bundle(name))
    found = list(check(opened, StandardGraphs(opened, 1, "cpu")))
    assert {finding.name: finding.detail for finding in found if not finding.passed} == {}


def test_a_false_weight_of_the_tower_fails_where_it_is_read(
    bundle: Find, falsified: Callable[..., Path], tmp_path: Path
) -> None:
    path = falsified(bundle("llava"), tmp_path / "x.bundle", "host.vision", "host.decoder")
    assert failed(path) == {"vision", RECORDED_STEPS}


def test_a_false_weight_of_the_decoder_fails_in_all_that_read_it(
    bundle: Find, falsified: Callable[..., Path], tmp_path: Path
) -> None:
    path = falsified(bundle("llava"), tmp_path / "x.bundle", "host.decoder", "host.vision")
    assert failed(path) == {"prefill", "prefill-fastv", "decode", RECORDED_STEPS}


class Wrong(OnnxRuntimeBackend):
    """Wrong in every call."""

    def decode(self, slots: Any, call: Any) -> Any:
        logits, update = super().decode(slots, call)
        return logits, replace(update, target=np.asarray(update.target) + 1)

    def select(self, *given: Any) -> Any:
        index, embeds = super().select(*given)
        return np.zeros_like(index), embeds

    def prefill(self, *given: Any) -> Any:
        raise BackendError("the device is lost")

    def vision(self, *given: Any) -> Any:
        seen = super().vision(*given)
        return replace(seen, embeds=np.full_like(seen.embeds, np.nan))


@pytest.mark.parametrize(
    ("call", "name", "said"),
    [
        ("decode", "decode", "of target are others"),
        ("select", "select-divprune", "of the same tokens"),
        ("prefill", "prefill", "the device is lost"),
        ("vision", "vision", "differs by nan"),
    ],
)
def test_one_wrong_call_is_told_by_its_graph(bundle: Find, call: str, name: str, said: str) -> None:
    opened = Bundle.open(bundle("llava"))
    # Right in all calls but this one.
    backend = type("One", (Wrong,), {n: vars(OnnxRuntimeBackend)[n] for n in CALLS if n != call})
    found = {finding.name: finding for finding in check(opened, backend(opened, 1))}
    assert not found[name].passed and said in found[name].detail
    assert found["decode"].passed == (call not in ("decode", "prefill"))


def test_a_bundle_that_kept_no_answer_of_a_graph_passes_no_test_of_it(
    bundle: Find, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Bundle.open(bundle("llama"))
    arrays = opened.read_arrays(SELFTEST)
    left = {name: array for name, array in arrays.items() if name != "decode.tolerance"}
    monkeypatch.setattr(Bundle, "read_arrays", lambda *_: left)
    found = {f.name: f for f in check(opened, OnnxRuntimeBackend(opened, 1))}
    assert found["prefill"].passed and not found["decode"].passed
    assert "keeps no answer of this graph; export" in found["decode"].detail


def test_what_overflows_is_told_with_its_graph_and_the_way_out(
    loaded: Callable[[str], Model], parts_of: Callable[[Model], Loaded]
) -> None:
    parts = parts_of(loaded("llama"))

    class Overflowing(StandardGraphs):
        def decode(self, slots: Any, call: Any) -> Any:
            logits, update = super().decode(slots, call)
            return np.full_like(logits, np.inf), update

    with pytest.raises(BundleError, match=r"standard graph of decode gives logits .*fp32"):
        standard = Loaded(parts.bundle, Overflowing(parts.bundle, 1, "cpu"), parts.clock)
        recorded_trials(outcomes(parts), standard)


def test_a_difference_is_told_as_a_share_and_what_is_no_number_stays_none() -> None:
    mine = {"a": np.array([2.0, -4.0], np.float32), "b": np.array([7])}
    assert spread(mine, mine) == 0
    assert spread(mine, mine | {"a": np.array([2.0, -3.0], np.float32)}) == 0.25
    assert np.isnan(spread(mine, mine | {"a": np.array([np.nan, -4.0], np.float32)}))
