"""Wrong checkpoints, wrong choices and exports that end early: told at once, nothing left."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="exporting needs torch")

import onnx_ir as ir  # noqa: E402
import safetensors.torch  # noqa: E402
from huggingface_hub import constants as hub_constants  # noqa: E402

from tightrope.bundle import MANIFEST, Bundle, Parity  # noqa: E402
from tightrope.errors import BundleError, InputError, UnsupportedModel  # noqa: E402
from tightrope.export import checkpoint, parity, selftest  # noqa: E402
from tightrope.export import export as exporting  # noqa: E402
from tightrope.export.checkpoint import open_checkpoint  # noqa: E402
from tightrope.export.config import PRECISIONS, ExportConfig  # noqa: E402
from tightrope.export.export import export  # noqa: E402
from tightrope.export.families import llava  # noqa: E402
from tightrope.export.graphs.write import Written  # noqa: E402
from tightrope.export.rounding import Rounding  # noqa: E402
from tightrope.export.weights import WeightFile  # noqa: E402

Find = Callable[[str], Path]
Edit = Callable[[Any], object]

MATRIX = "model.layers.1.mlp.down_proj.weight"
FP32 = ExportConfig(precision="fp32")


@pytest.fixture(autouse=True)
def no_tracing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong input is told before anything is traced; a test that goes further says so."""
    if "hollow" in request.fixturenames:
        return

    def refuse(*_: object) -> None:
        raise AssertionError("tracing began")

    monkeypatch.setattr(exporting, "trace_all", refuse)


@pytest.fixture
def hollow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports without graphs and parity, in a moment: for what happens around them."""
    monkeypatch.setattr(exporting, "trace_all", lambda *_: {})
    monkeypatch.setattr(exporting, "write_graphs", lambda *_: Written())
    figures = Parity(logits=0.0, allowed=1e-4, equal_tokens=1, tokens=1)
    monkeypatch.setattr(parity, "measure", lambda *_: figures)
    monkeypatch.setattr(selftest, "record", lambda _, manifest: manifest)


@pytest.fixture
def copy(checkpoint: Find, tmp_path: Path) -> Callable[[str], Path]:
    """`copy("llama")`: a checkpoint that may be damaged."""

    def make(name: str) -> Path:
        return Path(shutil.copytree(checkpoint(name), tmp_path / "checkpoint"))

    return make


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Where exports go; nothing else lies in its folder."""
    (tmp_path / "bundles").mkdir()
    return tmp_path / "bundles" / "out.bundle"


def edit_json(file: Path, edit: Edit) -> None:
    values = json.loads(file.read_text(encoding="utf-8"))
    edit(values)
    file.write_text(json.dumps(values), encoding="utf-8")


def edit_tensors(folder: Path, edit: Edit) -> Path:
    file = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    edit(tensors)
    safetensors.torch.save_file(tensors, file, metadata={"format": "pt"})
    return folder


def assert_refused(
    source: Any, output: Path, error: type[Exception], said: str, config: ExportConfig = FP32
) -> None:
    with pytest.raises(error, match=said) as raised:
        export(source, output, config)
    assert "\n" not in str(raised.value)
    assert list(output.parent.iterdir()) == []


CONFIGS: dict[str, tuple[str, Edit, str]] = {
    **{
        f"a hybrid decoder, {name}": (
            "llama",
            functools.partial(dict.update, model_type=name),
            f"'{name}' has layers of type {layer}.*state of constant size",
        )
        for name, layer in (
            ("qwen3_next", "linear_attention"),
            ("qwen3_5", "linear_attention"),
            ("qwen3_5_text", "linear_attention"),
            ("lfm2_moe", "conv"),
            ("lfm2_vl", "conv"),
            ("jamba", "mamba"),
            ("granitemoehybrid", "mamba"),
            ("recurrent_gemma", "recurrent"),
        )
    },
    "a hybrid decoder behind a tower": (
        "llava",
        lambda c: c["text_config"].update(model_type="qwen3_5_text"),
        "'qwen3_5_text' has layers of type linear_attention",
    ),
    "a kind of layer unheard of": (
        "llama",
        lambda c: c.update(layer_types=["full_attention", "chunked_attention", "conv"]),
        "layers of type 'chunked_attention'; accepted: full_attention, sliding_attention",
    ),
    "tokens that see later ones": (
        "gemma3",
        lambda c: c.update(use_bidirectional_attention=True),
        "tokens attend to later ones",
    ),
    "an encoder": ("llama", lambda c: c.update(is_causal=False), "tokens attend to later ones"),
    "code that is to be trusted": (
        "llama",
        lambda c: c.update(trust_remote_code=True),
        r"config\.json has trust_remote_code: the checkpoint needs code of its own",
    ),
    "another family": ("llama", lambda c: c.update(model_type="gpt2"), "'gpt2' has no exp"),
    "a name unheard of": ("llama", lambda c: c.update(model_type="x"), "'x' has no exporter; th"),
    "a rope that follows the length": (
        "llama",
        lambda c: c.update(
            rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
        ),
        "rope_type is 'dynamic'",
    ),
    "no name": ("llama", lambda c: c.pop("model_type"), "model type None has no exporter"),
    "a name that is none": ("llama", lambda c: c.update(model_type=["llama"]), "no exporter"),
    "a width in words": ("llama", lambda c: c.update(hidden_size="wide"), "has hidden_size 'wide'"),
    "no heads": ("llama", lambda c: c.update(num_attention_heads=0), "no config that can be read"),
    "a rotary rule unheard of": (
        "llama",
        lambda c: c.update(rope_parameters={"rope_type": "spiral"}),
        "rope_type is 'spiral'; accepted: default, linear, llama3, yarn",
    ),
    "a language model of another family": (
        "llava",
        lambda c: c["text_config"].update(model_type="gpt2"),
        "language model of type 'gpt2'; exporters exist for: llama, qwen2",
    ),
    "another tower": (
        "llava",
        lambda c: c["vision_config"].update(model_type="chinese_clip_vision_model"),
        "tower of type 'chinese_clip_vision_model'; accepted: clip_vision_model, siglip",
    ),
    "CLS among the tokens": (
        "llava",
        lambda c: c.update(vision_feature_select_strategy="full"),
        "strategy is 'full'",
    ),
    "an image token beyond the tokenizer": (
        "llava",
        lambda c: c.update(image_token_id=100_000),
        "image_token_id is 100000, which is none of the tokenizer's",
    ),
    "several layers": ("llava", lambda c: c.update(vision_feature_layer=[-2, -3]), "one layer"),
    "no layer": ("llava", lambda c: c.update(vision_feature_layer=0), r"layer is 0.*1\.\.3"),
    "a layer too deep": ("llava", lambda c: c.update(vision_feature_layer=-4), "has 3 layers"),
}


@pytest.mark.parametrize("what", CONFIGS)
def test_a_config_that_cannot_be_served_is_told(
    copy: Callable[[str], Path], output: Path, what: str
) -> None:
    name, edit, said = CONFIGS[what]
    folder = copy(name)
    edit_json(folder / "config.json", edit)
    assert_refused(folder, output, UnsupportedModel, said)


def test_a_side_that_patches_do_not_fill_is_told(copy: Callable[[str], Path], output: Path) -> None:
    folder = copy("llava")
    edit_json(folder / "config.json", lambda c: c["vision_config"].update(image_size=60))
    sizes = {"size": {"shortest_edge": 60}, "crop_size": {"height": 60, "width": 60}}
    edit_json(folder / "processor_config.json", lambda c: c["image_processor"].update(sizes))
    said = "own side is 60 pixels, no multiple of its patch of 14; name a --resolution"
    assert_refused(folder, output, UnsupportedModel, said)


@pytest.mark.parametrize(
    ("name", "file", "content", "said"),
    [
        ("llama", "config.json", None, "has no config.json; give a Hugging Face folder"),
        ("llama", "config.json", b"{", "config.json cannot be read"),
        ("llama", "config.json", b"\xff\xfe", "config.json cannot be read"),
        ("llama", "config.json", b"[]", "model type None"),
        ("llama", "tokenizer.json", None, "no tokenizer that can be read.*put the model's own"),
        ("llama", "tokenizer.json", b"{}", "no tokenizer that can be read"),
        ("llama", "tokenizer_config.json", b"{", "tokenizer_config.json cannot be read"),
        ("llama", "chat_template.jinja", b"{% if %}", "chat template of .* is not valid.*line 1"),
        ("llama", "generation_config.json", b"{", "generation_config.json cannot be read"),
        ("llama", "model.safetensors", None, "cannot be loaded.*model.safetensors"),
        ("llama", "model.safetensors", b"", "cannot be loaded.*header"),
        ("llama", "model.safetensors", b"\xff" * 64, "cannot be loaded.*header"),
        ("llava", "processor_config.json", None, "has neither preprocessor_config.json"),
        ("llava", "processor_config.json", b"{", "processor_config.json cannot be read"),
    ],
)
def test_a_missing_or_damaged_file_is_named(
    copy: Callable[[str], Path],
    output: Path,
    name: str,
    file: str,
    content: bytes | None,
    said: str,
) -> None:
    folder = copy(name)
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    assert_refused(folder, output, UnsupportedModel, said)


def test_weights_cut_by_one_byte_are_told(copy: Callable[[str], Path], output: Path) -> None:
    folder = copy("llama")
    os.truncate(folder / "model.safetensors", (folder / "model.safetensors").stat().st_size - 1)
    assert_refused(folder, output, UnsupportedModel, "cannot be loaded.*its tensors lie from 0 to")


def test_missing_and_misshapen_tensors_are_named(copy: Callable[[str], Path], output: Path) -> None:
    folder = edit_tensors(copy("llama"), lambda t: t.update({MATRIX: t[MATRIX][:, :5].clone()}))
    said = rf"misshapen tensors: {MATRIX} \[64, 5\] instead of \[64, 96\]"
    assert_refused(folder, output, UnsupportedModel, said)
    edit_tensors(folder, lambda tensors: tensors.pop(MATRIX))
    assert_refused(folder, output, UnsupportedModel, f"missing tensors: {MATRIX}; the checkpoint")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is 0 bytes long"),
        (b"garbage" * 100, "GGUF magic"),
        (b"GGUF\x03\0\0\0" + b"\xff" * 100, "claims 18446744073709551615 keys"),
    ],
)
def test_a_gguf_file_of_garbage_is_told(
    tmp_path: Path, output: Path, content: bytes, said: str
) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(content)
    assert_refused(file, output, UnsupportedModel, said)


def test_what_is_no_checkpoint_says_what_would_be_one(tmp_path: Path, output: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"x")
    other, nowhere = tmp_path / "weights.bin", tmp_path / "nowhere"
    assert_refused(other, output, UnsupportedModel, "neither a Hugging Face folder nor a .gguf")
    assert_refused(nowhere, output, UnsupportedModel, "does not exist; give a folder, a .gguf")
    for source in (None, 5, b"x", ""):
        assert_refused(source, output, InputError, "checkpoint is")


def test_a_hub_that_refuses_is_told_within_seconds(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_constants, "ENDPOINT", "http://127.0.0.1:9")
    started = time.perf_counter()
    assert_refused("nobody/nothing", output, UnsupportedModel, "nobody/nothing is no folder here")
    assert time.perf_counter() - started < 10


def test_a_hub_that_never_answers_is_given_up(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert checkpoint._HUB_SECONDS + 1 < 10
    monkeypatch.setattr(checkpoint, "_HUB_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr(hub_constants, "ENDPOINT", endpoint)
        started = time.perf_counter()
        said = "the hub at http.*does not give it.*download it elsewhere"
        assert_refused("nobody/nothing", output, UnsupportedModel, said)
        assert time.perf_counter() - started < 5


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"precision": "fp8"}, "precision is 'fp8'; accepted: fp32, fp16, int4"),
        ({"slots": 31}, "slots is 31"),
        ({"slots": "64"}, "slots is '64'"),
        ({"slots": 64.5}, "slots is 64.5"),
        ({"prefill_chunk": 15}, "prefill_chunk is 15"),
        ({"prefill_chunk": True}, "prefill_chunk is True"),
        ({"block_size": 48}, "block_size is 48"),
        ({"block_size": 32.0}, "block_size is 32.0"),
        ({"head_bits": 6}, "head_bits is 6; accepted: 4, 8"),
        ({"bits": 3.5}, "bits is 3.5"),
        ({"symmetric": 1}, "symmetric is 1; accepted: True or False"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 1.5}, "seed is 1.5"),
        ({"resolutions": (0,)}, "resolution is 0"),
        ({"resolutions": (56.0,)}, "resolution is 56.0"),
        ({"resolutions": 56}, "resolutions is 56; accepted: a tuple"),
        ({"selectors": "visionzip"}, "selectors is 'visionzip'"),
        ({"schedules": "fastv"}, "schedules is 'fastv'"),
        ({"schedules": None}, "schedules is None"),
    ],
    ids=repr,
)
def test_a_choice_that_is_wrong_for_any_checkpoint_is_refused(
    values: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        ExportConfig(**values)


@pytest.mark.parametrize(
    ("name", "values", "error", "said"),
    [
        ("llama", {"selectors": ("visionzip",)}, UnsupportedModel, "text model: it has no visual"),
        ("llama", {"schedules": ("fastv",)}, UnsupportedModel, "text model: it has no visual"),
        ("llama", {"resolutions": (56,)}, UnsupportedModel, "text model: it sees no images"),
        ("llava", {"selectors": ("hired",)}, InputError, "'hired'; accepted: divprune, flashvlm"),
        ("llava", {"selectors": ("fastv",)}, InputError, "name it as a schedule"),
        ("llava", {"schedules": ("pyramid",)}, InputError, "'pyramid'; accepted: fastv"),
        ("llava", {"resolutions": (57,)}, InputError, "resolution is 57; accepted: multiples"),
        ("llava", {"resolutions": (56, 13)}, InputError, "resolution is 13"),
    ],
)
def test_a_choice_that_the_checkpoint_cannot_serve_is_refused(
    checkpoint: Find,
    output: Path,
    name: str,
    values: dict[str, Any],
    error: type[Exception],
    said: str,
) -> None:
    assert_refused(checkpoint(name), output, error, said, ExportConfig(**values))


def test_a_schedule_deeper_than_the_model_is_refused(
    copy: Callable[[str], Path], output: Path
) -> None:
    folder = copy("llava")
    edit_json(folder / "config.json", lambda c: c["text_config"].update(num_hidden_layers=2))
    said = "schedule fastv acts at layer 2, the model has 2 layers"
    assert_refused(folder, output, UnsupportedModel, said, ExportConfig(schedules=("fastv",)))


def test_a_selector_that_the_tower_cannot_feed_names_the_others(
    checkpoint: Find, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llava.Llava, "signals", lambda *_: ("tower_states",))
    said = "visionzip needs cls_attention, tower_keys, which this tower .* feed: divprune"
    config = ExportConfig(selectors=("visionzip",))
    assert_refused(checkpoint("llava"), output, UnsupportedModel, said, config)


def graph_of(weight: Any, layout: str) -> ir.Model:
    """A graph with one initializer that asks for a weight in a layout."""
    value = ir.Value(
        name=MATRIX, type=ir.TensorType(ir.DataType.FLOAT16), shape=ir.Shape(weight.shape)
    )
    value.metadata_props.update(parameter=f"model.{MATRIX}", layout=layout)
    node = ir.Node("", "Identity", [value])
    graph = ir.Graph([], node.outputs, nodes=[node], initializers=[value], name="graph")
    return ir.Model(graph, ir_version=10)


@pytest.mark.parametrize(
    ("precision", "layout"),
    [
        ("fp16", "plain"),
        ("fp16", "transposed"),
        ("int4", "plain"),
        ("int4", "transposed"),
        ("int4", "codes"),
        ("int4", "scale"),
    ],
)
def test_a_value_beyond_float16_names_its_tensor(
    tmp_path: Path, precision: str, layout: str
) -> None:
    weight = torch.zeros(64, 96)
    weight[3, 5] = 1e6
    with (
        WeightFile(tmp_path, {MATRIX: weight}, PRECISIONS[precision], Rounding(32)) as file,
        pytest.raises(UnsupportedModel, match=f"{MATRIX} holds values.*precision fp32"),
    ):
        file.bind(graph_of(weight, layout))


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int4"])
@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_a_value_that_is_no_number_names_its_tensor(
    tmp_path: Path, precision: str, value: float
) -> None:
    weight = torch.zeros(64, 96)
    weight[3, 5] = value
    layout = "codes" if precision == "int4" else "plain"
    with (
        WeightFile(tmp_path, {MATRIX: weight}, PRECISIONS[precision], Rounding(32)) as file,
        pytest.raises(UnsupportedModel, match=f"{MATRIX} holds NaN or infinity"),
    ):
        file.bind(graph_of(weight, layout))


@pytest.mark.usefixtures("hollow")
def test_an_overflow_ends_the_export_and_leaves_nothing(
    copy: Callable[[str], Path], output: Path
) -> None:
    name = "model.embed_tokens.weight"
    folder = edit_tensors(copy("llama"), lambda tensors: tensors[name].view(-1)[7:8].fill_(1e6))
    said = f"{name} holds values that float16 cannot"
    assert_refused(folder, output, UnsupportedModel, said, ExportConfig(precision="fp16"))


STAGES = (
    "reading the checkpoint",
    "loading weights",
    "writing embeddings and texts",
    "checking parity",
    "hashing",
)


@pytest.mark.usefixtures("hollow")
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_export_that_is_broken_off_leaves_nothing(
    checkpoint: Find, output: Path, stage: str, error: Any
) -> None:
    def progress(what: str, share: float) -> None:
        # The manifest makes a folder a bundle, so it comes last.
        assert list(output.parent.rglob(MANIFEST)) == []
        if what == stage:
            raise error

    expected = KeyboardInterrupt if error is KeyboardInterrupt else BundleError
    with pytest.raises(expected):
        export(checkpoint("llama"), output, FP32, progress=progress)
    assert list(output.parent.iterdir()) == []


@pytest.mark.usefixtures("hollow")
def test_a_bundle_is_replaced_whole_or_stays(checkpoint: Find, output: Path) -> None:
    export(checkpoint("llama"), output, FP32)
    before = Bundle.open(output).manifest
    with pytest.raises(InputError, match=r"out\.bundle exists"):
        export(checkpoint("llama"), output, ExportConfig(precision="fp32", slots=64))

    def interrupt(what: str, share: float) -> None:
        if what == "hashing":
            raise KeyboardInterrupt

    config = ExportConfig(precision="fp32", slots=64)
    with pytest.raises(KeyboardInterrupt):
        export(checkpoint("llama"), output, config, progress=interrupt, overwrite=True)
    assert Bundle.open(output).manifest == before
    export(checkpoint("llama"), output, config, overwrite=True)
    assert Bundle.open(output).manifest.slots == 64
    assert {path.name for path in output.parent.iterdir()} <= {"out.bundle", "out.state"}


KILLED = """
import os, signal, sys
from tightrope.export import export as exporting
from tightrope.export.config import ExportConfig
from tightrope.bundle import Parity
from tightrope.export.graphs.write import Written
exporting.trace_all = lambda *_: {}
exporting.write_graphs = lambda *_: Written()
figures = Parity(logits=0.0, allowed=1e-4, equal_tokens=1, tokens=1)
exporting.parity.measure = lambda *_: figures
exporting.selftest.record = lambda _, manifest: manifest
def progress(what, share):
    if what == "hashing":
        os.kill(os.getpid(), signal.SIGKILL)
exporting.export(sys.argv[1], sys.argv[2], ExportConfig(precision="fp32"), progress=progress)
"""


def test_an_export_that_was_killed_leaves_nothing_that_looks_like_a_bundle(
    checkpoint: Find, output: Path
) -> None:
    command = [sys.executable, "-c", KILLED, str(checkpoint("llama")), str(output)]
    result = subprocess.run(command, capture_output=True, check=False)
    assert result.returncode == -signal.SIGKILL, result.stderr
    (left,) = output.parent.iterdir()
    assert left.name.startswith(".out.bundle.")
    with pytest.raises(BundleError, match=r"has no bundle\.json: it is no bundle"):
        Bundle.open(left)


def test_nothing_but_a_bundle_is_ever_replaced(checkpoint: Find, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    for name in ("file", "folder"):
        for overwrite, said in ((False, f"{name} exists"), (True, "is no bundle and is not repl")):
            with pytest.raises(InputError, match=said):
                export(checkpoint("llama"), tmp_path / name, overwrite=overwrite)
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


def test_a_place_that_cannot_be_written_is_told(
    checkpoint: Find, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    source = checkpoint("llama")
    for place in (tmp_path / "file" / "x.bundle", Path("/proc/x.bundle"), "a\0b"):
        with pytest.raises(InputError, match=r"cannot be written|is no path"):
            export(source, place)
    for nowhere in (None, 5, ""):
        with pytest.raises(InputError, match="output is"):
            export(source, nowhere)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="config is"):
        export(source, tmp_path / "x.bundle", {"slots": 64})  # type: ignore[arg-type]


def test_opening_reads_no_weights(copy: Callable[[str], Path]) -> None:
    folder = copy("llama")
    (folder / "model.safetensors").unlink()
    assert open_checkpoint(folder).family.model_type == "llama"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("nowhere/at/all",), 1, "does not exist"),
        (("CHECKPOINT", "--precision", "fp8"), 2, "precision is 'fp8'"),
        (("CHECKPOINT", "--schedule", "fastv"), 1, "is a text model"),
    ],
)
def test_the_command_line_says_it_in_one_sentence(
    checkpoint: Find,
    output: Path,
    arguments: tuple[str, ...],
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [str(checkpoint("llama")) if word == "CHECKPOINT" else word for word in arguments]
    monkeypatch.setattr(sys, "argv", ["tightrope", "export", *given, "-o", str(output)])
    monkeypatch.delenv("TIGHTROPE_DEBUG", raising=False)
    from tightrope.cli import main

    with pytest.raises(SystemExit) as ended:
        main()
    written = capsys.readouterr()
    assert (ended.value.code, written.out) == (code, "")
    assert said in written.err and written.err.count("\n") == 1 and "Traceback" not in written.err
