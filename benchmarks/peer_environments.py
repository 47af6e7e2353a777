"""The peers: what each is installed from, what it makes of a checkpoint, which shapes it runs.

An environment is made once, in `.cache/peers`. It sees the packages of the interpreter that runs
this behind its own, so that torch is there once; what would bring another torch is installed
without what it asks for.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from peer_weights import in_files, in_gguf, in_graph

HERE = Path(__file__).resolve().parent
CACHE = HERE.parent / ".cache" / "peers"
TEXT, SEES, SMOLLM2 = ("text",), ("llava", "qwen3_vl"), ("smollm2",)
IN_SAFETENSORS = in_files("*.safetensors")
Convert = Callable[[Path, Path, Path], list[str]]
"""Of the peer's interpreter, a checkpoint and the file or folder to write: a command."""


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One way to run a model."""

    name: str
    shapes: tuple[str, ...]
    requirements: tuple[str, ...] = ()
    """None: it runs in the interpreter that runs this."""
    alone: tuple[str, ...] = ()
    """Of them, those that are installed without what they ask for."""
    compile_flags: str = ""
    """CMAKE_ARGS of what is compiled."""
    convert: Convert | None = None
    """None: it reads the checkpoint itself."""
    output: str = ""
    """What the conversion writes, a name inside the shape's folder."""
    weight_bytes: Callable[[Path], int] = IN_SAFETENSORS
    """Of the folder that it loads: those that a step reads."""
    reads_gguf: bool = False
    """Whether it loads a GGUF file as it is."""
    prunes: tuple[str, ...] = ()
    """Shapes whose visual tokens it prunes."""

    @property
    def package(self) -> str:
        """Whose version is the peer's."""
        return self.requirements[0] if self.requirements else self.name.split()[0]

    def bytes_read(self, model: Path) -> int:
        """Of weights, in a step."""
        return in_gguf(model) if model.suffix == ".gguf" else self.weight_bytes(model)

    def prepared(self, source: Path, folder: Path) -> Path:
        """What the peer loads, made if it is not there."""
        if self.convert is None or (self.reads_gguf and source.suffix == ".gguf"):
            return source
        target = folder / self.output
        if not target.exists():
            folder.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(f"partial-{target.name}")
            shutil.rmtree(partial, ignore_errors=True)
            subprocess.run(self.convert(interpreter(self), source, partial), check=True)
            partial.rename(target)
        return target


def _tightrope(python: Path, source: Path, target: Path) -> list[str]:
    command = [str(python), "-m", "tightrope", "export", str(source), "-o", str(target)]
    command += ["--precision", "int4"]
    if (source / "preprocessor_config.json").is_file():
        command += ["--selector", "divprune", "--tower-precision", "auto"]
    if source.name.startswith("qwen3_vl"):
        command += ["--resolution", "768"]
    return command


def _gguf(python: Path, source: Path, target: Path) -> list[str]:
    return [str(python), str(HERE / "peer_gguf.py"), str(source), str(target)]


def _genai(python: Path, source: Path, target: Path) -> list[str]:
    builder = [str(python), "-m", "onnxruntime_genai.models.builder", "-i", str(source)]
    options = ["int4_accuracy_level=4", "int4_block_size=32", "int4_is_symmetric=true"]
    return [*builder, "-o", str(target), "-p", "int4", "-e", "cpu", "--extra_options", *options]


def _openvino(python: Path, source: Path, target: Path) -> list[str]:
    return [str(python), str(HERE / "peer_openvino.py"), str(source), str(target)]


NO_AMX = " ".join(
    ["-DLLAVA_BUILD=OFF", *(f"-DCMAKE_{each}_FLAGS=-U__AMX_INT8__" for each in ("C", "CXX"))]
)
"""llama-cpp-python 0.3.36 crashes in AMX's kernels; without them it takes those for AVX-512."""
PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            name="tightrope",
            shapes=(*TEXT, *SEES, *SMOLLM2),
            convert=_tightrope,
            output="tightrope.bundle",
            weight_bytes=in_graph("graphs/host.decoder.onnx"),
            prunes=SEES,
        ),
        Peer(
            name="llama.cpp",
            shapes=(*TEXT, *SMOLLM2),
            requirements=("llama-cpp-python",),
            compile_flags=NO_AMX,
            convert=_gguf,
            output="q4_0.gguf",
            reads_gguf=True,
        ),
        Peer(
            name="onnxruntime-genai",
            shapes=TEXT,
            requirements=("onnxruntime-genai",),
            convert=_genai,
            output="genai",
            weight_bytes=in_graph("model.onnx"),
        ),
        Peer(
            name="openvino-genai",
            shapes=(*TEXT, *SEES, *SMOLLM2),
            requirements=(
                *("openvino-genai", "openvino-tokenizers", "nncf"),
                *("transformers<=5.0", "huggingface-hub<1.22", "requests>=2.33"),
                *("optimum-intel", "optimum"),
            ),
            alone=("optimum-intel", "optimum"),
            convert=_openvino,
            output="openvino",
            weight_bytes=in_files("openvino_model.bin", "openvino_language_model.bin"),
            reads_gguf=True,
            prunes=("qwen3_vl",),
        ),
        Peer(name="transformers", shapes=(*TEXT, *SEES)),
    )
}


def interpreter(peer: Peer) -> Path:
    """Its Python; installs what it needs the first time, some minutes."""
    if not peer.requirements:
        return Path(sys.executable)
    folder = CACHE / peer.name
    python, done = folder / "bin" / "python", folder / "requirements.json"
    if not done.exists() or json.loads(done.read_text()) != list(peer.requirements):
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        (site,) = folder.glob("lib/python*/site-packages")
        (site / "behind.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
        install = [str(python), "-m", "pip", "install", "--quiet"]
        whole = [name for name in peer.requirements if name not in peer.alone]
        environment = {**os.environ, "CMAKE_ARGS": peer.compile_flags}
        subprocess.run([*install, *whole], check=True, env=environment)
        if peer.alone:
            subprocess.run([*install, "--no-deps", *peer.alone], check=True)
        done.write_text(json.dumps(peer.requirements), encoding="utf-8")
    return python


def version(peer: Peer) -> str:
    code = "import sys; from importlib.metadata import version; print(version(sys.argv[1]))"
    command = [str(interpreter(peer)), "-c", code, peer.package]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    return found.stdout.strip()
