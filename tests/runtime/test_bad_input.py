"""Wrong requests and wrong surroundings: each its own error, before anything runs."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from tightrope import typed
from tightrope.bundle import MANIFEST
from tightrope.errors import BackendError, BundleError, DeviceUnavailable, InputError
from tightrope.point import OperatingPoint
from tightrope.runtime.backends import availability
from tightrope.runtime.model import Model, load

Find = Callable[[str], Path]
Loaded = Callable[[str], Model]
Edit = Callable[[Any], object]

RED = PIL.Image.new("RGB", (30, 40), "red")
SLOTS = 2048


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> Callable[[Model], Model]:
    """A model whose backend must not run."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the backend ran")

    def watch(model: Model) -> Model:
        for name in ("vision", "select", "prefill", "decode"):
            monkeypatch.setattr(model.backend, name, refuse)
        return model

    return watch


@pytest.fixture
def text(loaded: Loaded, idle: Callable[[Model], Model]) -> Model:
    return idle(loaded("llama"))


@pytest.fixture
def seeing(loaded: Loaded, idle: Callable[[Model], Model]) -> Model:
    return idle(loaded("llava"))


@pytest.mark.parametrize(
    "prompt",
    [
        None, 5, 1.5, True, {"role": "user", "content": "a"}, {1}, b"abc", object(),
        iter([1]), np.array([1, 2]), "", [], (), [[1]], ["a"], [{}], [{"role": "user"}],
        [{"role": "judge", "content": "a"}], [{"role": "user", "content": 5}],
        [{"role": "user", "content": "a"}, 5], [1, "a"], [1, 2.5], [1, True], [1, None],
        [1, -1], [1, 256], [1, 2**40],
    ],
    ids=lambda prompt: repr(prompt)[:40],
)  # fmt: skip
def test_a_prompt_that_is_none_is_refused(text: Model, prompt: Any) -> None:
    with pytest.raises(InputError, match=r"prompt|messages|token id"):
        text.generate(prompt, max_tokens=1)


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ([1, 2.5], "has 2.5 among token ids"),
        ([1, 256], "token id 256 is outside the vocabulary of 256"),
        ([{"role": "judge", "content": "a"}], "role 'judge'; accepted: system, developer, user"),
        ("", "empty"),
    ],
)
def test_what_is_wrong_in_a_prompt_is_named(text: Model, prompt: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        text.generate(prompt)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("max_tokens", (0, -1, True, 1.5, "a", None)),
        ("temperature", (-1, math.nan, math.inf, "a", None, True)),
        ("top_p", (0, -1, 2, math.nan, "a", None, True)),
        ("n", (0, -1, True, 1.5, "a", None, 129, 10**30)),
        ("seed", (-1, True, 1.5, "a", None)),
        ("stop", (0, 5, "", "end", [""], [5], b"x", {"a": 1})),
        ("point", ("snapkv", 5, {"keep": 4}, ())),
        ("ignore_eos", (0, "yes", None)),
    ],
)
def test_an_option_out_of_range_is_refused_by_name(
    text: Model, name: str, values: tuple[Any, ...]
) -> None:
    for value in values:
        with pytest.raises(InputError, match=rf"^{name} is .*accepted"):
            text.generate("a", **{name: value})


def test_streaming_and_chatting_refuse_as_early(text: Model) -> None:
    with pytest.raises(InputError, match="max_tokens is 0"):
        text.stream("a", max_tokens=0)
    chat = text.chat()
    for wrong in (None, 5, "", ["a"]):
        with pytest.raises(InputError, match="text is"):
            chat.ask(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="unexpected keyword argument 'n'"):
        chat.ask("a", n=2)  # type: ignore[call-arg]
    with pytest.raises(InputError, match="max_tokens is 0"):
        chat.stream("a", max_tokens=0)
    with pytest.raises(InputError, match="images is a NoneType"):
        chat.ask("a", None)  # type: ignore[arg-type]
    assert chat.messages == []


@pytest.mark.parametrize(
    ("point", "said"),
    [
        ({"kv_budget": 36}, "kv_budget is 36, but snapkv keeps 4 sinks and 32 recent"),
        ({"kv_budget": 20, "policy": "tova"}, "kv_budget is 20, but tova.*21 or more"),
        ({"kv_budget": 10, "sinks": 6, "recent": 4}, "11 or more"),
        ({"kv_budget": SLOTS + 1}, f"kv_budget is {SLOTS + 1}, the bundle has {SLOTS} slots"),
        ({"kv_budget": (64, 64, SLOTS + 1)}, f"kv_budget is {SLOTS + 1}"),
        ({"kv_budget": (64, 36, 64)}, "kv_budget is 36"),
        ({"kv_budget": (64, 64)}, r"2 values; accepted: one, or one per layer \(3\)"),
        ({"kv_budget": ()}, "0 values"),
        ({"kv_budget": 64, "policy": "lru"}, "policy is 'lru'; accepted: streaming, h2o"),
        ({"kv_budget": 64, "policy": ""}, "policy is ''"),
        ({"resolution": 56}, "resolution is 56, but the bundle sees no images"),
        ({"selector": "random", "keep": 4}, "selector is 'random', but the bundle sees no"),
    ],
)
def test_a_point_that_does_not_fit_a_text_bundle_is_refused(
    text: Model, point: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        text.generate("a", point=OperatingPoint(**point))


@pytest.mark.parametrize(
    ("point", "said"),
    [
        ({"selector": "visionzip", "keep": 17}, "keep is 17; an image has 16 tokens"),
        ({"selector": "visionzip", "keep": 5, "resolution": 28}, "an image has 4 tokens"),
        ({"selector": "fastv", "keep": 17}, "keep is 17"),
        ({"selector": "hired", "keep": 4}, "selector is 'hired'; the bundle has divprune"),
        ({"selector": "", "keep": 4}, "selector is ''"),
        ({"selector": "visionzip+", "keep": 4}, "selector is ''"),
        ({"selector": "fastv+visionzip", "keep": 4}, "one before the language model, then one"),
        ({"selector": "visionzip+divprune", "keep": 4}, "one before the language model"),
        ({"selector": "fastv+fastv", "keep": 4}, "twice inside the model"),
        ({"resolution": 70}, "resolution is 70; the bundle was made for 56, 84, 28"),
        ({"resolution": 57}, "resolution is 57"),
    ],
)
@pytest.mark.parametrize("images", [(), (RED,)], ids=["no image", "an image"])
def test_a_point_that_does_not_fit_a_seeing_bundle_is_refused(
    seeing: Model, point: dict[str, Any], said: str, images: tuple[PIL.Image.Image, ...]
) -> None:
    with pytest.raises(InputError, match=said):
        seeing.generate("a", images, point=OperatingPoint(**point))


def test_a_prompt_that_the_slots_cannot_hold_is_refused_before_the_tower_runs(
    text: Model, seeing: Model
) -> None:
    with pytest.raises(InputError, match=rf"needs {SLOTS + 1} slots, the bundle has {SLOTS}"):
        text.generate([5] * (SLOTS + 1), max_tokens=1)
    ids = [4] + [5] * (SLOTS - 15)
    with pytest.raises(InputError, match=rf"needs {SLOTS + 1} slots.*keep fewer visual tokens"):
        seeing.generate(ids, [RED], max_tokens=1)


def test_a_prompt_longer_than_a_schedules_one_call_is_refused_before_the_tower_runs(
    seeing: Model,
) -> None:
    chunk = seeing.bundle.manifest.prefill_chunk
    point = OperatingPoint(selector="fastv", keep="50%")
    with pytest.raises(InputError, match=rf"has {chunk + 1} tokens.*{chunk} at most.*prefill_ch"):
        seeing.generate([4] + [5] * (chunk - 15), [RED], max_tokens=1, point=point)


def test_a_prompt_that_just_fits_is_answered(loaded: Loaded) -> None:
    assert loaded("llama").generate([5] * SLOTS, max_tokens=5).finish_reason == "length"


@pytest.mark.parametrize(
    ("prompt", "count", "said"),
    [
        ("<image><image> a", 1, "mark places for 2 images, but 1 came"),
        ("<image> a", 2, "mark places for 1 images, but 2 came"),
        ([4, 4, 5], 1, "1 images were given for 2 placeholders"),
        ([5], 1, "1 images were given for 0 placeholders"),
        ([{"role": "system", "content": "a"}], 1, "no message of the user"),
    ],
)
def test_images_and_their_places_must_agree(
    seeing: Model, prompt: Any, count: int, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        seeing.generate(prompt, [RED] * count)


@pytest.mark.parametrize("prompt", ["a", [5, 6]], ids=["text", "ids"])
def test_a_text_bundle_refuses_images(text: Model, prompt: Any) -> None:
    with pytest.raises(InputError, match="1 images were given, but the bundle sees none"):
        text.generate(prompt, [RED])


@pytest.mark.parametrize(
    "images",
    [None, 5, "x.png", b"", RED, np.zeros((4, 4, 3), np.uint8), {"a": 1}, iter([RED])],
    ids=lambda images: type(images).__name__,
)
def test_images_come_as_a_list(seeing: Model, images: Any) -> None:
    with pytest.raises(InputError, match=r"images is a .*accepted: a list"):
        seeing.generate("a", images)


def test_an_image_that_cannot_be_used_is_told_before_anything_runs(
    seeing: Model, tmp_path: Path
) -> None:
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    moving = tmp_path / "moving.gif"
    RED.save(moving, save_all=True, append_images=[PIL.Image.new("RGB", (30, 40), "blue")])
    for image, said in (
        (tmp_path / "none.png", "not a file"),
        (tmp_path / "cut.png", "damaged"),
        (moving, "2 frames"),
        (np.zeros((0, 4, 3), np.uint8), "accepted: uint8"),
        (np.broadcast_to(np.uint8(0), (9000, 9000, 3)), "64 megapixels"),
        (None, "an image is a NoneType"),
    ):
        with pytest.raises(InputError, match=said):
            seeing.generate("a", [RED, image])  # type: ignore[list-item]


def test_a_model_goes_on_after_a_refusal(loaded: Loaded) -> None:
    model = loaded("llama")
    before = model.generate("a", max_tokens=3).token_ids
    chat = model.chat()
    chat.ask("a", max_tokens=3)
    with pytest.raises(InputError):
        chat.ask("a" * SLOTS, max_tokens=3)
    assert len(chat.messages) == 2
    assert chat.ask("b", max_tokens=3).text
    assert model.generate("a", max_tokens=3).token_ids == before


def without_unknown(tokenizer: dict[str, Any]) -> None:
    """Words alone, and none for what is no word."""
    words = {"cup": 0, "red": 1}
    tokenizer["model"] = {"type": "WordLevel", "vocab": words, "unk_token": "<none>"}


def giving_up(tokenizer: dict[str, Any]) -> None:
    """Code in Rust panics over it, which is no Exception."""
    tokenizer["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": "AAAA"}


@pytest.fixture
def copy(bundle: Find, tmp_path: Path) -> Callable[..., Path]:
    """`copy("llama", {"generation.json": edit})`: a bundle whose JSON and hashes were edited."""

    def make(name: str, edits: dict[str, Edit | bytes]) -> Path:
        folder = tmp_path / f"{name}.bundle"
        shutil.copytree(bundle(name), folder, copy_function=os.link)
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        for file, edit in edits.items():
            content = edit if isinstance(edit, bytes) else b""
            if callable(edit):
                values = manifest
                if file != MANIFEST:
                    values = json.loads((folder / file).read_text(encoding="utf-8"))
                edit(values)
                content = json.dumps(values).encode()
            (folder / file).unlink()
            (folder / file).write_bytes(content)
            if file != MANIFEST:
                digest = hashlib.sha256(content).hexdigest()
                manifest["files"][file] = {"bytes": len(content), "sha256": digest}
        (folder / MANIFEST).unlink(missing_ok=True)
        (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
        return folder

    return make


@pytest.mark.parametrize(
    ("name", "file", "edit", "said"),
    [
        ("llama", "generation.json", lambda g: g.pop("eos_token_ids"), "has no eos_token_ids"),
        ("llama", "generation.json", lambda g: g.update(eos_token_ids="2"), "eos_token_ids is '2'"),
        ("llama", "generation.json", lambda g: g.pop("special_tokens"), "has no special_tokens"),
        ("llama", "generation.json", lambda g: g.pop("add_special_tokens"), "add_special_tokens"),
        ("llama", "generation.json", lambda g: g.pop("embedding_scale"), "embedding_scale"),
        ("llama", "tokenizer.json", b"{}", "tokenizer.json is no tokenizer"),
        ("llama", "chat_template.jinja", b"{% if %}", "not a valid template"),
        ("llama", "generation.json", lambda g: g.update(eos_token_ids=["2"]), "is '2'"),
        ("llama", "generation.json", lambda g: g.update(eos_token_ids=[True]), "is True"),
        ("llama", "generation.json", lambda g: g.update(eos_token_ids=[-1]), "is damaged"),
        ("llama", "generation.json", lambda g: g.update(eos_token_ids=[2**70]), "is damaged"),
        ("llama", "generation.json", lambda g: g.update(special_tokens={"bos_token": 5}), "is 5"),
        ("llama", "generation.json", lambda g: g.update(embedding_scale="1"), "is '1'"),
        ("llama", "generation.json", lambda g: g.update(extra=1), "unknown entries"),
        ("llama", "generation.json", b"[]", "holds no JSON object"),
        ("llama", "generation.json", b"[" * 100_000, "generation.json is damaged"),
        ("llama", "chat_template.jinja", b"\xff\xfe{{ 1 }}", r"chat_template\.jinja is damaged"),
        ("llava", "preprocessor.json", lambda p: p.update(size="big"), "has size 'big'"),
        ("llava", "preprocessor.json", lambda p: p.update(image_mean=7), "has image_mean 7"),
        ("llava", "preprocessor.json", lambda p: p.update(do_resize="yes"), "do_resize 'yes'"),
        ("llava", "preprocessor.json", b"\xff", r"preprocessor\.json is damaged"),
        ("llama", "graphs/host.decoder.onnx", b"garbage", r"host\.decoder\.onnx is damaged"),
        (
            "llama",
            MANIFEST,
            lambda m: m["dims"].update(num_hidden_layers=2),
            r"decoder\.onnx .*says",
        ),
        ("llama", MANIFEST, lambda m: m["dims"].update(num_key_value_heads=4), r"r\.onnx .*says"),
        ("llama", MANIFEST, lambda m: m["dims"].update(head_dim=8), r"decoder\.onnx .*says"),
        ("llama", MANIFEST, lambda m: m["files"].pop("tokenizer.json"), "has no tokenizer.json"),
        ("llama", MANIFEST, lambda m: m["files"].pop("embeddings.data"), "has no embeddings"),
        ("llama", MANIFEST, lambda m: m.update(minimum_onnxruntime="99.1"), "ONNX Runtime 99.1"),
        ("llava", "preprocessor.json", lambda p: p.pop("resample"), "do_resize but no resample"),
        ("llama", "generation.json", lambda g: g.update(embedding_scale=math.nan), "scale is nan"),
        ("llama", "generation.json", lambda g: g.update(embedding_scale=1e300), "scale is 1e"),
        ("llama", "tokenizer.json", without_unknown, r"cannot encode a text: .*Missing \[UNK\]"),
        ("llama", "tokenizer.json", giving_up, "is no tokenizer: Precompiled"),
        ("llava", MANIFEST, lambda m: m["vision"].update(kind="cloud"), "of kind 'cloud'"),
        ("llava", MANIFEST, lambda m: m.update(positions="spiral"), "has positions 'spiral'"),
        ("llava", "positions.npz", b"PK", "positions.npz is damaged"),
        (
            "llava",
            MANIFEST,
            lambda m: m["vision"]["sizes"].update(hidden_size=16),
            "positions.npz is damaged",
        ),
        (
            "llava",
            MANIFEST,
            lambda m: m["vision"].update(resolutions=[112]),
            "112 is missing",
        ),
    ],
)
def test_a_bundle_whose_parts_disagree_is_not_loaded(
    copy: Callable[..., Path], name: str, file: str, edit: Edit | bytes, said: str
) -> None:
    with pytest.raises((BundleError, BackendError), match=said):
        load(copy(name, {file: edit}))


def with_row(kind: str, old: str, new: str) -> Callable[[bytes], bytes]:
    """A graph in which one input or output has another name."""

    def edit(content: bytes) -> bytes:
        onnx = pytest.importorskip("onnx", reason="a graph is edited with it")
        model = onnx.ModelProto.FromString(content)
        graph = model.graph
        for row in getattr(graph, kind):
            row.name = new if row.name == old else row.name
        for node in graph.node:
            names = getattr(node, kind)
            names[:] = [new if name == old else name for name in names]
        edited: bytes = model.SerializeToString()
        return edited

    return edit


@pytest.mark.parametrize(
    ("file", "edit", "said"),
    [
        ("vision", with_row("output", "visual_embeds", "zap"), "visual_embeds is missing"),
        ("vision", with_row("input", "pixel_values", "zap"), "pixel_values is missing"),
        ("select-divprune", with_row("input", "visual_embeds", "zap"), "visual_embeds is missing"),
        ("decoder", with_row("output", "logits", "zap"), "logits is missing"),
        ("decoder", lambda c: c.replace(b"query_position", b"query_posi\xff\xfeon"), "utf-8"),
        ("select-divprune", None, "keep_ramp is missing"),
    ],
)
def test_a_graph_of_other_inputs_and_outputs_is_told_by_its_name(
    bundle: Find, copy: Callable[..., Path], file: str, edit: Callable[[bytes], bytes], said: str
) -> None:
    graphs = bundle("llava") / "graphs"
    name = f"graphs/host.{file}.onnx"
    # Without an edit: another graph of the bundle in its place.
    whole = (graphs / ("host.vision.onnx" if edit is None else Path(name).name)).read_bytes()
    edited = whole if edit is None else edit(whole)
    assert edit is None or edited != whole
    point = OperatingPoint(selector="divprune", keep=4)
    with pytest.raises(BundleError, match=rf"host\.{file}\.onnx is damaged: .*{said}"):
        load(copy("llava", {name: edited})).generate("a", [RED], max_tokens=1, point=point)


def npy(claimed: tuple[int, ...], held: int) -> bytes:
    """An array that claims a shape and holds `held` bytes."""
    stream = io.BytesIO()
    described = {"descr": "<f4", "fortran_order": False, "shape": claimed}
    np.lib.format.write_array_header_1_0(stream, described)
    return stream.getvalue() + b"\0" * held


@pytest.mark.parametrize(
    ("claimed", "held", "said"),
    [
        ((10**12,), 16, "claims"),
        ((10**5, 10**5), 16, "claims"),
        ((1, 17, 32), 17 * 32 * 4 - 1, "EOF|claims"),
        ((2**33, 2**33), 0, "claims"),
        ((typed.MOST_BYTES // 4,), typed.MOST_BYTES, "at most"),
        ((-1, 17, 32), 17 * 32 * 4, "negative|claims"),
    ],
    ids=str,
)
def test_an_array_that_claims_more_than_it_holds_asks_for_no_memory(
    copy: Callable[..., Path], claimed: tuple[int, ...], held: int, said: str
) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("56.npy", npy(claimed, held))
    folder = copy("llava", {"positions.npz": packed.getvalue()})
    with pytest.raises(BundleError, match=rf"positions\.npz is damaged: .*({said})"):
        load(folder)


def test_a_text_over_which_a_tokenizer_gives_up_is_told(copy: Callable[..., Path]) -> None:
    def backtrack(tokenizer: dict[str, Any]) -> None:
        endless = {"Regex": "(a|aa|aaa|b)+$|(((.*)*)*)*x"}
        tokenizer["pre_tokenizer"] = {
            "type": "Split", "pattern": endless, "behavior": "Isolated", "invert": False
        }  # fmt: skip

    model = load(copy("llama", {"tokenizer.json": backtrack}))
    with pytest.raises(BundleError, match="cannot encode this text: Onig"):
        model.generate("a" * 40 + "!", max_tokens=1)


@pytest.mark.parametrize(
    ("template", "error", "said"),
    [
        (b"{{ raise_exception('roles must alternate') }}", InputError, "roles must alternate"),
        (b"{{ messages.__class__.__mro__ }}", BundleError, "SecurityError"),
        (b"{{ 1 / 0 }}", BundleError, "ZeroDivisionError"),
        (b"{{ messages[0]['content'] }}<image>", BundleError, "image placeholders"),
    ],
    ids=["raises", "escapes", "fails", "adds an image"],
)
def test_a_template_that_misbehaves_is_told_before_anything_runs(
    copy: Callable[..., Path],
    idle: Callable[[Model], Model],
    template: bytes,
    error: type[Exception],
    said: str,
) -> None:
    model = idle(load(copy("llava", {"chat_template.jinja": template})))
    with pytest.raises(error, match=said):
        model.generate("a", [RED], max_tokens=1)


def test_a_tokenizer_of_another_model_is_told(copy: Callable[..., Path]) -> None:
    def add(tokenizer: dict[str, Any]) -> None:
        first = dict(tokenizer["added_tokens"][0], id=300, content="<extra>")
        tokenizer["added_tokens"].append(first)
        tokenizer["model"]["vocab"]["<extra>"] = 300

    model = load(copy("llama", {"tokenizer.json": add, "chat_template.jinja": b"<extra>"}))
    with pytest.raises(BundleError, match="gives token id 300, the model knows 256"):
        model.generate("a", max_tokens=1)


@pytest.mark.parametrize("threads", [0, -1, True, 1.5, "2", 10**9])
def test_a_wrong_number_of_threads_is_refused(bundle: Find, threads: Any) -> None:
    with pytest.raises(InputError, match=r"threads is .*accepted: a whole number, 1"):
        load(bundle("llama"), threads=threads)


@pytest.mark.parametrize("backend", ["cpu", "", None, 5])
def test_an_unknown_backend_names_those_there_are(bundle: Find, backend: Any) -> None:
    with pytest.raises(
        InputError, match=r"backend is .*auto, tensorrt, onnxruntime-cuda, onnxruntime"
    ):
        load(bundle("llama"), backend=backend)


@pytest.mark.parametrize("backend", ["onnxruntime-cuda", "tensorrt"])
def test_a_gpu_that_is_not_there_is_an_error_and_no_fall_back(
    bundle: Find, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(availability, "num_cuda_devices", lambda: 0)
    with pytest.raises(DeviceUnavailable, match=f"backend {backend} cannot run: .*; (?!None)"):
        load(bundle("llama"), backend=backend)


LOAD = """
import sys
from tightrope.errors import TightropeError
try:
    import tightrope
    tightrope.load(sys.argv[1])
except TightropeError as error:
    print(type(error).__name__, error)
"""


def loading_says(bundle: Path, path: Path, before: str = "") -> str:
    """What `load` says in a process of its own, with `path` first on sys.path."""
    result = subprocess.run(
        [sys.executable, "-c", before + LOAD, str(bundle)],
        env={**os.environ, "PYTHONPATH": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def installed(folder: Path, name: str, version: str) -> None:
    record = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    record.mkdir(parents=True)
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    (record / "METADATA").write_text(metadata, encoding="utf-8")


def test_two_onnxruntimes_are_refused_with_the_way_out(bundle: Find, tmp_path: Path) -> None:
    installed(tmp_path, "onnxruntime", "1.23.0")
    installed(tmp_path, "onnxruntime-gpu", "1.23.0")
    said = loading_says(bundle("llama"), tmp_path)
    assert said.startswith("BackendError onnxruntime 1.23.0 and onnxruntime-gpu 1.23.0 are both")
    assert "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu" in said


def test_an_onnxruntime_that_cannot_be_imported_names_the_command(
    bundle: Find, tmp_path: Path
) -> None:
    block = "import sys; sys.modules['onnxruntime'] = None\n"
    said = loading_says(bundle("llama"), tmp_path, block)
    assert said.startswith("BackendError onnxruntime cannot be imported")
    assert "pip install" in said


def test_a_missing_onnxruntime_names_the_command(
    bundle: Find, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(availability, "installed_version", lambda name: None)
    monkeypatch.setattr(availability, "find_spec", lambda name: None)
    with pytest.raises(BackendError, match="not installed; pip install onnxruntime"):
        load(bundle("llama"))


@pytest.mark.parametrize(
    ("package", "said"),
    [
        ("__version__ = '1.17.3'", "this bundle needs ONNX Runtime 1.23, installed is 1.17.3"),
        ("", "the onnxruntime package is incomplete; pip install"),
    ],
    ids=["old", "remains"],
)
def test_an_onnxruntime_that_will_not_do_is_told(
    bundle: Find, tmp_path: Path, package: str, said: str
) -> None:
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "__init__.py").write_text(package, encoding="utf-8")
    assert loading_says(bundle("llama"), tmp_path).startswith(f"BackendError {said}")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--max-tokens", "0"), 2, "max_tokens is 0"),
        (("--temperature", "nan"), 2, "temperature is nan"),
        (("--kv-budget", "36"), 2, "kv_budget is 36"),
        (("--kv-budget", "64", "--policy", "lru"), 2, "policy is 'lru'"),
        (("--image", "none.png"), 2, "not a file"),
        (("--backend", "cpu"), 2, "backend is 'cpu'"),
        (("--backend", "tensorrt"), 1, "backend tensorrt cannot run"),
    ],
)
def test_the_command_line_says_it_in_one_sentence(
    bundle: Find,
    arguments: tuple[str, ...],
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["tightrope", "run", str(bundle("llama")), "a", *arguments])
    monkeypatch.delenv("TIGHTROPE_DEBUG", raising=False)
    from tightrope.cli import main

    with pytest.raises(SystemExit) as ended:
        main()
    written = capsys.readouterr()
    assert (ended.value.code, written.out) == (code, "")
    assert said in written.err and written.err.count("\n") == 1 and "Traceback" not in written.err
