"""Small checkpoints and their bundles, made once per session and only if a test asks.

Nothing here imports torch by itself: the tests of the oldest supported packages run without it.
"""

from __future__ import annotations

import fcntl
import functools
import importlib.util
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

if TYPE_CHECKING:
    from tightrope.runtime.loaded import Loaded
    from tightrope.runtime.model import Model

HERE = Path(__file__).parent
REFERENCE = HERE.parent / "models" / "reference"
SMOLLM2 = HERE.parent / "models" / "smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf"

# Other programs share the machine: an example that takes long is no failure.
hypothesis.settings.register_profile(
    "patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")

TEXT = {"prefill_chunk": 32}
PICTURES = {"schedules": ("fastv",), "resolutions": (56, 84, 28)}
GRIDS = {
    "qwen2_5_vl": {"schedules": ("fastv",), "resolutions": (72, 96, 48)},
    "qwen3_vl": {"schedules": ("fastv",), "resolutions": (96, 128, 64)},
}
"""Budgets of 36, 64 and 16 visual tokens."""
EXPORTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"precision": "fp32", **TEXT}),
    "llama-fp16": ("llama", {"precision": "fp16", **TEXT}),
    "llama-int4": (
        "llama",
        {"precision": "int4", "block_size": 32, "symmetric": True, **TEXT},
    ),
    "qwen2": ("qwen2", {"precision": "fp32", **TEXT}),
    "llava": ("llava", {"precision": "fp32", **PICTURES}),
    "llava-fp16": ("llava", {"precision": "fp16", **PICTURES}),
    "llava-int8-slots": ("llava", {"precision": "fp16", "kv_cache": "int8", **PICTURES}),
    "qwen2_5_vl": ("qwen2_5_vl", {"precision": "fp32", **GRIDS["qwen2_5_vl"]}),
    "qwen3_vl": ("qwen3_vl", {"precision": "fp32", **GRIDS["qwen3_vl"]}),
    "reference": ("reference", {"precision": "fp32", "schedules": ("fastv",)}),
    "smollm2": ("smollm2", {"precision": "fp16"}),
    "llava-siglip": ("llava-siglip", {"precision": "fp32", "resolutions": (30, 42), **TEXT}),
    "llava-next": ("llava-next", {"precision": "fp32", "resolutions": (84, 56, 28), **TEXT}),
    "llava-onevision": ("llava-onevision", {"precision": "fp32", "prefill_chunk": 100}),
    "smolvlm": (
        "smolvlm",
        {"precision": "fp32", "schedules": ("fastv",), "resolutions": (112, 56, 28)},
    ),
    "internvl": ("internvl", {"precision": "fp32", "resolutions": (69, 49, 28), **TEXT}),
    "gemma3-vl": (
        "gemma3-vl",
        {"precision": "fp32", "schedules": ("fastv",), "resolutions": (56, 28)},
    ),
}
"""Bundle -> the checkpoint that it comes from, and how it is exported."""

SHARED = os.environ.get("TIGHTROPE_TEST_SHARED")
"""A folder where the sessions of one `make test` leave what they made for each other."""

CHECKPOINT_FILES = ("checkpoints.py", "tiled_checkpoints.py", "gemma_checkpoint.py")

Find = Callable[[str], Path]


def load_module(file: Path) -> ModuleType:
    """A file of shared test code as a module: `tests` is no package."""
    name = f"_tests_{file.stem}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def made_once(folder: Path, make: Callable[[], object]) -> Path:
    """`folder`, made by `make` unless a session beside this one has made it.

    Each session has its own copy, since what is learnt of a bundle is kept beside it.
    """
    if SHARED is None:
        make()
        return folder
    common = Path(SHARED) / folder.name
    with Path(f"{common}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if common.exists():
            shutil.copytree(common, folder)
        else:
            make()
            part = Path(f"{common}.part")
            shutil.copytree(folder, part)
            part.rename(common)
    return folder


FAMILIES = load_module(HERE / "text_families.py")
EXPORTS |= {name: (name, {"precision": "fp32", **TEXT}) for name in FAMILIES.TEXT_FAMILIES}


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Find:
    """`checkpoint("llama")`: a folder in Hugging Face's layout, or a GGUF file."""

    def make(name: str, folder: Path) -> None:
        if name in FAMILIES.TEXT_FAMILIES:
            load_module(HERE / "checkpoints.py").text_family(folder, *FAMILIES.fields_of(name))
        else:
            known = [load_module(HERE / file).CHECKPOINTS for file in CHECKPOINT_FILES]
            next(made for made in known if name in made)[name](folder)

    @functools.cache
    def find(name: str) -> Path:
        if name == "reference":
            return REFERENCE
        if name == "smollm2":
            if not SMOLLM2.exists():
                pytest.skip("the SmolLM2 file is not here: run `make fetch-smollm2`")
            return SMOLLM2
        folder = tmp_path_factory.mktemp("checkpoints") / name
        return made_once(folder, lambda: make(name, folder))

    return find


@pytest.fixture(scope="session")
def exported() -> Callable[..., Any]:
    """`exported(checkpoint, folder, precision="fp16")`: a summary.

    Tracing depends on no precision: exports that differ in that alone share it.
    """
    pytest.importorskip("torch", reason="exporting needs torch")
    from tightrope.export import export as exporting
    from tightrope.export.config import ExportConfig
    from tightrope.export.graphs.traces import trace_all

    known: dict[str, Any] = {}

    def trace(recipe: Any, progress: Any) -> Any:
        info = recipe.vision and recipe.vision.info
        source = recipe.checkpoint.folder, recipe.checkpoint.name
        key = repr((source, recipe.dims, info, recipe.selectors, tuple(recipe.schedules)))
        if key not in known:
            known[key] = trace_all(recipe, progress)
        return known[key]

    def export(checkpoint: Path, folder: Path, **options: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(exporting, "trace_all", trace)
            return exporting.export(checkpoint, folder, ExportConfig(**options))

    return export


@pytest.fixture(scope="session")
def bundle(
    checkpoint: Find, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Find:
    """`bundle("llava-fp16")`: a folder that was exported by this `make test`."""

    @functools.cache
    def find(name: str) -> Path:
        if importlib.util.find_spec("torch") is None:
            pytest.skip("exporting needs torch")
        source, options = EXPORTS[name]
        folder = tmp_path_factory.mktemp("bundles") / f"{name}.bundle"

        def make() -> None:
            request.getfixturevalue("exported")(checkpoint(source), folder, **options)

        return made_once(folder, make)

    return find


@pytest.fixture(scope="session")
def loaded(bundle: Find) -> Callable[[str], Model]:
    """`loaded("llama")`: the bundle on ONNX Runtime; a tiny one is fastest on one thread."""
    from tightrope.runtime.model import load

    def threads(name: str) -> int:
        return 2 if name in ("reference", "smollm2") else 1

    return functools.cache(
        lambda name: load(bundle(name), "onnxruntime", threads(name), live=False)
    )


@pytest.fixture(scope="session")
def hugging_face(checkpoint: Find) -> Callable[[str], Any]:
    """`hugging_face("llama")`: Hugging Face's own model in float32, with eager attention."""
    transformers = pytest.importorskip("transformers", reason="the oracle is Hugging Face's model")

    @functools.cache
    def load_checkpoint(name: str) -> Any:
        file = checkpoint(name)
        gguf = {"gguf_file": file.name} if file.is_file() else {}
        folder = file.parent if gguf else file
        others = [load_module(HERE / file).CHECKPOINTS for file in CHECKPOINT_FILES[1:]]
        see = name in ("llava", "reference", *GRIDS, *(each for one in others for each in one))
        auto = (
            transformers.AutoModelForImageTextToText if see else transformers.AutoModelForCausalLM
        )
        model = auto.from_pretrained(folder, dtype="float32", attn_implementation="eager", **gguf)
        model.set_experts_implementation("eager")
        return model.eval().requires_grad_(False)

    return load_checkpoint


@pytest.fixture(scope="session")
def module_of() -> Callable[[Path], ModuleType]:
    """`module_of(file)`: a file of shared test code as a module."""
    return load_module


@pytest.fixture(scope="session")
def eager() -> ModuleType:
    """The decoder of `runtime/eager.py`, which holds its cache in lists."""
    return load_module(HERE / "runtime" / "eager.py")


@pytest.fixture(scope="session")
def oracle() -> ModuleType:
    """What `runtime/oracle.py` knows of Hugging Face's models."""
    pytest.importorskip("torch", reason="the oracle is Hugging Face's model")
    return load_module(HERE / "runtime" / "oracle.py")


@pytest.fixture(scope="session")
def synthetic() -> ModuleType:
    """The latency model and the workloads of `latency_models.py`, made up and known."""
    return load_module(HERE / "latency_models.py")


@pytest.fixture(scope="session")
def frontier_files() -> ModuleType:
    """Quality files and files of measured points, as `frontier_files.py` writes them."""
    return load_module(HERE / "frontier_files.py")


@pytest.fixture(scope="session")
def boards() -> ModuleType:
    """`jetson/boards.py`: file systems of Jetson boards."""
    return load_module(HERE / "jetson" / "boards.py")


@pytest.fixture(scope="session")
def machines() -> ModuleType:
    """`machines.py`: models without arithmetic on a clock that a script moves."""
    return load_module(HERE / "machines.py")


@pytest.fixture(scope="session")
def thinker(bundle: Find, machines: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Find:
    """`thinker("told")`: a small text bundle whose template writes thoughts in this way."""

    @functools.cache
    def find(template: str) -> Path:
        folder = tmp_path_factory.mktemp("thinkers") / f"{template}.bundle"
        return machines.thinking_bundle(bundle("llama"), folder, template)  # type: ignore[no-any-return]

    return find


@pytest.fixture(scope="session")
def parts_of() -> Callable[[Model], Loaded]:
    """`parts_of(model)`: its bundle's parts, opened once more on the same backend."""
    from tightrope.runtime.loaded import Loaded

    return lambda model: Loaded(model.bundle, model.backend, time.perf_counter)


@pytest.fixture
def recorded(loaded: Callable[[str], Model], oracle: ModuleType) -> Callable[[str], Model]:
    """`recorded("llama")`: the model on a backend that notes its calls and logits."""
    from tightrope.runtime.model import Model

    def wrap(name: str) -> Model:
        real = loaded(name)
        return Model(real.bundle, oracle.Recorder(real.backend))

    return wrap


@pytest.fixture(params=FAMILIES.TEXT_FAMILIES)
def text_family(request: pytest.FixtureRequest) -> str:
    """Each checkpoint of `text_families.py` in its turn."""
    return str(request.param)


@pytest.fixture(scope="session")
def gguf_files() -> ModuleType:
    """Small GGUF files, written without the reader: `gguf_files.py`."""
    pytest.importorskip("torch", reason="exporting needs torch")
    return load_module(HERE / "gguf_files.py")
