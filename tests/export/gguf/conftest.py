"""Random models and the files that are made of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

VOCABULARY = 300
Make = Callable[..., tuple[Any, Path]]


@pytest.fixture(scope="session")
def vocabulary(gguf_files: ModuleType) -> dict[str, Any]:
    """Keys of a tokenizer with fewer tokens than the models have rows."""
    keys: dict[str, Any] = gguf_files.metadata_of(gguf_files.byte_level(["<|end|>"], 280))
    return keys | {"tokenizer.ggml.pre": "qwen2", "tokenizer.ggml.eos_token_id": 0}


@pytest.fixture
def make(gguf_files: ModuleType, vocabulary: dict[str, Any], tmp_path: Path) -> Make:
    """`make("llama", head_dim=24)`: a random model, and its file.

    kind: the quantisation; metadata: keys that are added, None takes one away; edit: changes the
    file's tensors.
    """

    def build(
        architecture: str,
        *,
        kind: Any = gguf_files.F32,
        metadata: dict[str, Any] | None = None,
        edit: Callable[[dict[str, Any]], object] = lambda _: None,
        name: str = "m.gguf",
        **changes: Any,
    ) -> tuple[Any, Path]:
        model = gguf_files.model_of(gguf_files.config_of(architecture, **changes))
        tensors = gguf_files.tensors_of(model, architecture)
        edit(tensors)
        keys = gguf_files.keys_of(model, architecture) | vocabulary | (metadata or {})
        keys = {key: value for key, value in keys.items() if value is not None}
        file = gguf_files.write(tmp_path / name, keys, tensors, architecture, kind)
        return model, file

    return build
