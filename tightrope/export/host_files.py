"""What the host reads besides graphs: embeddings, positions, tokenizer, template, rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tightrope.export.checkpoint import Checkpoint, parameters_of
from tightrope.export.choices import Choices
from tightrope.export.weights import WeightFile


def write_host_files(
    folder: Path,
    source: Checkpoint,
    choices: Choices,
    model: Any,
    tokenizer: Any,
    weights: WeightFile,
    kind: str,
) -> None:
    """Write them to `folder`; kind: element type of the embeddings, float16 or float32."""
    table = model.get_input_embeddings().weight
    name = next(key for key, value in parameters_of(model).items() if value is table)
    weights.rounded(name).numpy().astype(kind).tofile(folder / "embeddings.data")
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    if choices.chat_template is not None:
        (folder / "chat_template.jinja").write_text(choices.chat_template, encoding="utf-8")
    write_json(folder / "generation.json", _generation(source, model, tokenizer))
    adapter = source.family.vision
    if choices.vision is None or adapter is None:
        return
    tables = {
        str(side): adapter.position_table(model, side).float().numpy()
        for side in choices.vision.resolutions
    }
    np.savez(folder / "positions.npz", **tables)  # type: ignore[arg-type]  # names are free
    write_json(folder / "preprocessor.json", choices.preprocessor)


def _generation(source: Checkpoint, model: Any, tokenizer: Any) -> dict[str, Any]:
    ends: set[int] = set()
    for config in (model.generation_config, source.config.get_text_config()):
        found = getattr(config, "eos_token_id", None)
        ends.update([found] if isinstance(found, int) else found or [])
    if tokenizer.eos_token_id is not None:
        ends.add(tokenizer.eos_token_id)
    special = {
        name: token
        for name, token in tokenizer.special_tokens_map.items()
        if isinstance(token, str)
    }
    return {
        "eos_token_ids": sorted(ends),
        # Hugging Face's processors add what the post-processor adds, its tokenizers do not.
        "add_special_tokens": source.family.vision is not None,
        "special_tokens": special,
        "embedding_scale": 1.0,
    }


def write_json(file: Path, content: dict[str, Any]) -> None:
    """One JSON object, readable."""
    text = json.dumps(content, indent=1, ensure_ascii=False)
    file.write_text(text + "\n", encoding="utf-8")
