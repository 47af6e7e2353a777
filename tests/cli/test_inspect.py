from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tightrope.bundle import FORMAT, MANIFEST, Bundle, FileEntry, Manifest, Source
from tightrope.interface.onnx import OWN_OPSET
from tightrope.interface.tensors import Dims
from tightrope.runtime.memory import planned_bytes, resident_memory

Command = Callable[..., "subprocess.CompletedProcess[str]"]


def manifest(files: dict[str, bytes], precision: str = "fp16") -> Manifest:
    return Manifest(
        format=FORMAT,
        family="text",
        dims=Dims(
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            hidden_size=32,
            vocab_size=100,
        ),
        positions="ordinal",
        opset_version=OWN_OPSET,
        precision=precision,
        activations="float16",
        embeddings="float16",
        slots=64,
        prefill_chunk=32,
        minimum_onnxruntime="1.23",
        source=Source(name="tiny", revision="sha256:0", licence="apache-2.0"),
        files={
            name: FileEntry(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
            for name, content in files.items()
        },
    )


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny.bundle"
    files = {"graphs/weights.data": bytes(1000), "embeddings.data": bytes(6400)}
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    text = json.dumps(manifest(files).to_dict())
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    return folder


def test_json_holds_the_manifest_and_the_memory(command: Command, bundle: Path) -> None:
    result = command("inspect", str(bundle), "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["bundle"]["family"] == "text"
    assert found["memory_bytes"]["embeddings, at most"] == 6400


def test_people_read_the_licence_and_every_file(command: Command, bundle: Path) -> None:
    result = command("inspect", str(bundle))
    assert result.returncode == 0, result.stderr
    assert all(word in result.stdout for word in ("apache-2.0", "graphs/weights.data", "Memory"))


def test_verify_finds_a_file_that_was_edited_in_place(command: Command, bundle: Path) -> None:
    (bundle / "embeddings.data").write_bytes(bytes(6399) + b"x")
    result = command("inspect", str(bundle), "--verify")
    assert result.returncode == 1
    assert "embeddings.data" in result.stderr


def test_weights_count_twice_on_the_host_where_they_are_widened_or_packed_twice() -> None:
    files = {"graphs/weights.data": bytes(1000)}
    names = ("fp32", "fp16", "int4")
    found = [resident_memory(manifest(files, name))["weights, host graphs"] for name in names]
    assert found == [1000, 2000, 2000]


def test_slots_take_keys_and_values_of_every_layer_and_head() -> None:
    memory = resident_memory(manifest({}))
    assert memory["slots at capacity, host graphs"] == 2 * 2 * 2 * 64 * 8 * 4
    assert memory["slots at capacity, standard graphs"] == 2 * 2 * 2 * 64 * 8 * 2
    assert memory["kept of earlier requests, at most"] == 128 << 20, "it sees no images"


def test_a_backend_is_planned_with_its_own_graphs_alone() -> None:
    found = manifest({"graphs/weights.data": bytes(1000)})
    both = 100 * 32 * 2 + (128 << 20)
    assert planned_bytes(found, "onnxruntime") == 2000 + 2 * 2 * 2 * 64 * 8 * 4 + both
    assert planned_bytes(found, "tensorrt") == 1000 + 2 * 2 * 2 * 64 * 8 * 2 + both


def test_layers_that_see_a_window_hold_no_more_and_say_so(command: Command, bundle: Path) -> None:
    values = json.loads((bundle / MANIFEST).read_text(encoding="utf-8"))
    values |= {"windows": [0, 16], "max_positions": 50}
    (bundle / MANIFEST).write_text(json.dumps(values), encoding="utf-8")
    memory = resident_memory(Bundle.open(bundle).manifest)
    assert memory["slots at capacity, host graphs"] == 2 * (64 + 16) * 2 * 8 * 4
    shown = command("inspect", str(bundle)).stdout
    assert "1 of 2 layers see and hold the newest 16 tokens" in shown
    assert "50 tokens at most" in shown


def test_a_board_adds_a_memory_plan_and_predicted_times_with_their_sources(
    command: Command, bundle: Path
) -> None:
    shown = command("inspect", str(bundle), "--board", "orin-nano-8gb").stdout
    for said in ("proof level 0", "measured nowhere", "first token of 28 tokens", "each token"):
        assert said in shown
    for said in (
        "weights of prefill (counted)",
        "(estimated from dims)",
        "(assumed)",
        "data sheet",
    ):
        assert said in shown
    told = json.loads(command("inspect", str(bundle), "--board", "orin nano 8GB", "--json").stdout)
    promised = told["data_sheet"]
    assert promised["proof_level"] == 0 and promised["memory"]["fits"]
    assert promised["request"]["ttft_ms"] == promised["request"]["prefill_ms"] > 0
