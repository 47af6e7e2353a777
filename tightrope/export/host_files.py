"""What the host reads besides graphs: embeddings, positions, tokenizer, template, rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tightrope.bundle import EMBEDDINGS
from tightrope.export.checkpoint import embedding_scale
from tightrope.export.late import parameters_of
from tightrope.export.recipe import Recipe
from tightrope.export.weights import WeightFile


def write_host_files(recipe: Recipe, model: Any, weights: WeightFile, folder: Path) -> None:
    """Write them to `folder`."""
    table = model.get_input_embeddings().weight
    name = next(key for key, value in parameters_of(model).items() if value is table)
    with (folder / EMBEDDINGS).open("wb") as file:
        weights.in_storage(name).numpy().tofile(file)
        if recipe.vision is not None:
            # What is scaled at run time with all the others must come out as it is.
            own = recipe.vision.model.separators(model).float().numpy()
            own = own / embedding_scale(model)
            own.astype(recipe.precision.storage).tofile(file)
    recipe.tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    if recipe.chat_template is not None:
        (folder / "chat_template.jinja").write_text(recipe.chat_template, encoding="utf-8")
    write_json(folder / "generation.json", _generation(recipe, model))
    if recipe.vision is not None:
        tables = recipe.vision.model.tables(model, recipe.vision.info)
        np.savez(folder / "positions.npz", **tables)  # type: ignore[arg-type]  # names are free
        write_json(folder / "preprocessor.json", recipe.preprocessor)


def _generation(recipe: Recipe, model: Any) -> dict[str, Any]:
    tokenizer, family = recipe.tokenizer, recipe.checkpoint.family
    special = {
        name: token
        for name, token in tokenizer.special_tokens_map.items()
        if isinstance(token, str)
    }
    return {
        "eos_token_ids": sorted(recipe.checkpoint.end_ids(model)),
        # Hugging Face's processors add what the post-processor adds, its tokenizers do not;
        # llama.cpp adds it to every prompt.
        "add_special_tokens": family.tower is not None or recipe.checkpoint.gguf is not None,
        "special_tokens": special,
        "embedding_scale": embedding_scale(model),
    }


def write_json(file: Path, content: dict[str, Any]) -> None:
    """One JSON object, readable."""
    text = json.dumps(content, indent=1, ensure_ascii=False)
    file.write_text(text + "\n", encoding="utf-8")
