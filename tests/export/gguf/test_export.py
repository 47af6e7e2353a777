"""GGUF files all the way: what a bundle answers is what the model answers that the file is of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="exporting needs torch")
pytest.importorskip("gguf", reason="exporting needs gguf")

from tightrope.errors import UnsupportedModel  # noqa: E402
from tightrope.export.config import ExportConfig  # noqa: E402
from tightrope.export.export import export  # noqa: E402
from tightrope.export.gguf import tensors  # noqa: E402
from tightrope.runtime.model import Model, load  # noqa: E402

Make = Callable[..., tuple[Any, Path]]
FP32 = ExportConfig(precision="fp32", slots=256, prefill_chunk=64)

WHOLE: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "llama with everything odd": (
        "llama",
        {
            "head_dim": 24,
            "attention_bias": True,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 1e4,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        },
        {},
    ),
    "qwen2, tied, with yarn and a window": (
        "qwen2",
        {
            "use_sliding_window": True,
            "sliding_window": 21,
            "layer_types": ["full_attention", "sliding_attention"],
            "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 1e4,
                "factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        },
        {
            "qwen2.attention.sliding_window": 21,
            "qwen2.attention.sliding_window_pattern": [False, True],
        },
    ),
}


@pytest.mark.parametrize("what", WHOLE)
def test_a_bundle_of_a_file_is_the_model_that_the_file_was_made_of(
    make: Make, oracle: ModuleType, tmp_path: Path, what: str
) -> None:
    architecture, changes, keys = WHOLE[what]
    metadata = {
        **keys,
        "general.name": "small",
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.chat_template": "{{ messages[0]['content'] }}",
    }
    model, file = make(architecture, metadata=metadata, **changes)
    summary = export(file, tmp_path / "m.bundle", FP32)
    assert summary.parity is not None and summary.parity.read_weights is not None
    assert summary.parity.read_weights < 1e-4
    assert summary.notes[:2] == (
        "GGUF weights were dequantised",
        "keys of the GGUF file that have no effect: 1 (general.* describes the file)",
    )
    real = load(tmp_path / "m.bundle", "onnxruntime", 1)
    assert real.bundle.read_json("generation.json")["eos_token_ids"] == [0]
    asked = real.token_ids("a b")
    assert asked[0] == 0 and 0 not in asked[1:], "the beginning that the file asks for, once"
    recorded = Model(real.bundle, oracle.Recorder(real.backend))
    prompt = np.random.default_rng(3).integers(1, 300, 150).tolist()
    answer = recorded.generate(prompt, max_tokens=6, ignore_eos=True)
    embeds = oracle.text_embeds(model, prompt)
    wanted = oracle.continued(model, embeds, answer.token_ids)
    backend: Any = recorded.backend
    np.testing.assert_allclose(backend.logits, wanted[: len(backend.logits)], atol=2e-3)


def test_an_export_that_misreads_its_file_writes_nothing(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parity alone would be content: graph and model would be wrong alike."""
    _, file = make("llama")
    monkeypatch.setattr(tensors, "interleaved_to_halves", lambda value, heads: value)
    with pytest.raises(UnsupportedModel, match="was not read as it stands"):
        export(file, tmp_path / "bundles" / "m.bundle", FP32)
    assert not list((tmp_path / "bundles").iterdir())
