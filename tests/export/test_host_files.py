"""What the host reads besides graphs, in bundles that were exported whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers

from tightrope.bundle import EMBEDDINGS, Bundle

Find = Callable[[str], Path]


@pytest.fixture(params=["llama", "llama-fp16", "qwen2", "llava"])
def opened(request: pytest.FixtureRequest, bundle: Find) -> tuple[str, Bundle]:
    """The checkpoint's name and its bundle."""
    name: str = request.param
    return name.partition("-")[0], Bundle.open(bundle(name))


def test_the_embeddings_are_the_checkpoints_in_the_type_that_it_says(
    opened: tuple[str, Bundle], hugging_face: Callable[[str], Any]
) -> None:
    name, bundle = opened
    manifest = bundle.manifest
    shape = (manifest.dims.vocab_size, manifest.dims.hidden_size)
    table = np.fromfile(bundle.file(EMBEDDINGS), manifest.embeddings).reshape(shape)
    wanted = hugging_face(name).get_input_embeddings().weight.numpy()
    np.testing.assert_array_equal(table, wanted.astype(manifest.embeddings))


def test_the_tokenizer_and_the_template_are_the_checkpoints(
    opened: tuple[str, Bundle], checkpoint: Find
) -> None:
    name, bundle = opened
    ours = tokenizers.Tokenizer.from_file(str(bundle.file("tokenizer.json")))
    theirs = tokenizers.Tokenizer.from_file(str(checkpoint(name) / "tokenizer.json"))
    text = "what is it? <end> é"
    assert ours.encode(text).ids == theirs.encode(text).ids
    template = (checkpoint(name) / "chat_template.jinja").read_text(encoding="utf-8")
    assert bundle.file("chat_template.jinja").read_text(encoding="utf-8") == template


def test_the_rules_of_generation_are_whole(opened: tuple[str, Bundle]) -> None:
    name, bundle = opened
    rules = bundle.read_json("generation.json")
    assert rules["eos_token_ids"] == [1]
    assert rules["embedding_scale"] == 1.0
    assert rules["special_tokens"]["eos_token"] == "<end>"
    assert rules["add_special_tokens"] is (name == "llava")


def test_only_a_model_that_sees_has_files_for_pictures(opened: tuple[str, Bundle]) -> None:
    name, bundle = opened
    seen = {"positions.npz", "preprocessor.json"} & set(bundle.manifest.files)
    assert len(seen) == (2 if name == "llava" else 0)
    if name == "llava":
        config = bundle.read_json("preprocessor.json")
        assert "kind" not in config and config["resample"] == 3
        tables = bundle.read_arrays("positions.npz")
        assert {key: array.shape for key, array in tables.items()} == {
            "56": (1, 17, 32),
            "84": (1, 37, 32),
            "28": (1, 5, 32),
        }


@pytest.mark.parametrize(("dtype", "scale"), [("float32", 45**0.5), ("bfloat16", 6.71875)])
def test_a_table_that_scales_its_rows_says_by_how_much(
    checkpoint: Find, dtype: str, scale: float
) -> None:
    torch = pytest.importorskip("torch", reason="exporting needs torch")
    from tightrope.export.checkpoint import embedding_scale, open_checkpoint

    model = open_checkpoint(checkpoint("gemma2")).load_model().to(getattr(torch, dtype))
    assert embedding_scale(model) == pytest.approx(scale, rel=1e-7)
    table = model.get_input_embeddings()
    ids = torch.arange(5, 50)
    assert torch.equal(table(ids), table.weight[ids] * embedding_scale(model))
