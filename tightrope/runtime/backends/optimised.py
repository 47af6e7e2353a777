"""Sessions opened from the graph that ONNX Runtime made of a bundle's, kept in the state folder.

What takes long in opening a large graph is not reading it: products are fused with their codes,
which are laid out anew. ONNX Runtime can write what it made. It is kept by the content of the
bundle, ONNX Runtime's version and the processor, because it holds for no other:

    NAME.state/sessions/GRAPH-KEY/model.onnx, model.data, stamp.json

Small bundles open as fast without. Where nothing can be written, every opening begins anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime

import tightrope
from tightrope.bundle import Bundle
from tightrope.foreign import words
from tightrope.interface.names import GraphName
from tightrope.jetson.probe import read_cpu_flags
from tightrope.state import state_folder, write_whole

FOLDER = "sessions"
_MODEL, _DATA, _STAMP = "model.onnx", "model.data", "stamp.json"
_SMALLEST_BYTES = 64 << 20
"""Of a bundle whose sessions are worth keeping."""
_SMALLEST_TENSOR = 1024
"""Bytes of a tensor that stands in model.data."""
_ABANDONED_SECONDS = 3600
_ROOM = 2
"""Free disk that is asked for, as a multiple of the bundle's bytes."""

MakeOptions = Callable[[], Any]
"""Session options of the caller, new ones at each call."""


def open_session(bundle: Bundle, graph: GraphName, options: MakeOptions, notes: list[str]) -> Any:
    """A session of one of the bundle's host graphs.

    notes: told where what was kept had to be made anew, or could not be. Raises whatever ONNX
    Runtime does over the bundle's own graph.
    """
    file, size = bundle.graph(graph), sum(entry.bytes for entry in bundle.manifest.files.values())
    if size < _SMALLEST_BYTES:
        return _session(file, options())
    kept = _place(bundle, graph)
    if _is_whole(kept):
        if not (kept / _MODEL).exists():
            return _session(file, options())
        try:
            return _session(kept / _MODEL, _as_it_is(options()))
        # Some releases cannot read what they wrote. Their classes share no base: no list holds.
        except Exception as error:
            _give_up(kept)
            notes.append(f"the kept session of {graph} does not open and is left: {words(error)}")
            return _session(file, options())
    if kept.exists():
        notes.append(f"the kept session of {graph} was damaged and is made anew")
    folder = _new_folder(kept, _ROOM * size)
    if folder is not None:
        try:
            session = _session(file, _writing(options(), folder))
            if _drop_others(kept, graph):
                notes.append(
                    f"the kept session of {graph} was of another bundle, ONNX Runtime or processor "
                    "and is made anew"
                )
            (folder / _STAMP).write_text(json.dumps(_stamp(folder)), encoding="utf-8")
            folder.rename(kept)
            return session
        except Exception as error:  # a full disk, for one
            notes.append(f"the session of {graph} could not be kept: {words(error)}")
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return _session(file, options())


def _place(bundle: Bundle, graph: GraphName) -> Path:
    parts = (
        tightrope.__version__,
        bundle.digest,
        str(graph),
        onnxruntime.__version__,
        platform.machine(),
        *sorted(read_cpu_flags()),
    )
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    return state_folder(bundle.path) / FOLDER / f"{graph}-{key}"


def _session(file: Path, options: Any) -> Any:
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def _is_whole(kept: Path) -> bool:
    """Whether it is what was written."""
    try:
        found: bool = json.loads((kept / _STAMP).read_text(encoding="utf-8")) == _stamp(kept)
        return found
    except (OSError, ValueError):
        return False


def _as_it_is(options: Any) -> Any:
    """`options`, and nothing is made of the graph."""
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def _give_up(kept: Path) -> None:
    """Leave a folder that is whole and holds no model, so that it is not tried again."""
    shutil.rmtree(kept, ignore_errors=True)
    with contextlib.suppress(OSError):
        write_whole(kept / _STAMP, json.dumps({}))


def _new_folder(kept: Path, needed_bytes: int) -> Path | None:
    """An empty folder beside `kept`; None where it cannot be had."""
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(kept.parent).free < needed_bytes:
            return None
        return Path(tempfile.mkdtemp(prefix=".", dir=kept.parent))
    except OSError:
        return None


def _writing(options: Any, folder: Path) -> Any:
    """`options`, and ONNX Runtime writes what it makes of a graph to `folder`."""
    options.optimized_model_filepath = str(folder / _MODEL)
    for name, value in (
        ("external_initializers_file_name", _DATA),
        ("external_initializers_min_size_in_bytes", str(_SMALLEST_TENSOR)),
    ):
        options.add_session_config_entry(f"session.optimized_model_{name}", value)
    return options


def _drop_others(kept: Path, graph: GraphName) -> bool:
    """Remove what else was kept of the graph; whether there was any but `kept` itself."""
    beside = list(kept.parent.iterdir())
    others = [other for other in beside if other.name.rpartition("-")[0] == str(graph)]
    for other in (*others, *filter(_is_abandoned, beside)):
        shutil.rmtree(other, ignore_errors=True)
    return any(other != kept for other in others)


def _is_abandoned(folder: Path) -> bool:
    """Whether a process was ended while it wrote `folder`."""
    return folder.name[0] == "." and time.time() - folder.stat().st_mtime > _ABANDONED_SECONDS


def _stamp(folder: Path) -> dict[str, list[int]]:
    """Size, time and inode of each file but the stamp."""
    found = {}
    for file in sorted(folder.iterdir()):
        if file.name != _STAMP:
            status = file.stat()
            found[file.name] = [status.st_size, status.st_mtime_ns, status.st_ino]
    return found
