"""Where an answer ends: held against transformers' `generate` for the same folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="exporting needs torch")

import transformers  # noqa: E402

from tightrope.export.checkpoint import open_checkpoint  # noqa: E402

Find = Callable[[str], Path]
CANDIDATES = (0, 1, 2, 3, 4, 7, 9, 11)

CASES: dict[str, tuple[str, Any, Any]] = {
    # checkpoint, generation_config.json, eos of config.json ("text:" in text_config)
    "generation_config.json decides": ("llama", {"eos_token_id": [7, 9]}, 3),
    "with one": ("llama", {"eos_token_id": 7}, [3, 4]),
    "an id of zero": ("llama", {"eos_token_id": 0}, 3),
    "it is silent": ("llama", {"do_sample": True}, 3),
    "it is not there": ("llama", None, 3),
    "config.json names several": ("llama", None, [3, 4]),
    "nobody speaks": ("llama", None, None),
    "nobody speaks, and the class is silent too": ("qwen2", None, None),
    "nobody but the file for something else": ("qwen2", {"top_k": 5}, None),
    "a language model inside": ("llava", None, "text:4"),
    "a language model inside, overruled": ("llava", {"eos_token_id": 9}, "text:4"),
}


class Force(transformers.LogitsProcessor):  # type: ignore[misc]
    """Makes one token the likeliest."""

    def __init__(self, token: int) -> None:
        self.token = token

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        scores = torch.full_like(scores, -1e9)
        scores[:, self.token] = 0
        return scores


def stops_at(folder: Path, see: bool) -> set[int]:
    """The candidates after which transformers generates no more."""
    auto = transformers.AutoModelForImageTextToText if see else transformers.AutoModelForCausalLM
    model = auto.from_pretrained(folder)
    prompt = torch.tensor([[20, 21, 22]])
    stops = set()
    for token in CANDIDATES:
        whole = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=2,
            logits_processor=[Force(token)],
            pad_token_id=0,
            do_sample=False,
        )
        if whole.shape[1] == 4:
            stops.add(token)
    return stops


@pytest.mark.parametrize("what", CASES)
def test_an_answer_ends_where_transformers_ends_it(
    checkpoint: Find, tmp_path: Path, what: str
) -> None:
    name, generation, eos = CASES[what]
    folder = Path(shutil.copytree(checkpoint(name), tmp_path / "checkpoint"))
    (folder / "generation_config.json").unlink(missing_ok=True)
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation), encoding="utf-8")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    inner = config.get("text_config", {})
    config.pop("eos_token_id", None)
    inner.pop("eos_token_id", None)
    if isinstance(eos, str):
        inner["eos_token_id"] = int(eos.partition(":")[2])
    elif eos is not None:
        config["eos_token_id"] = eos
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    opened = open_checkpoint(folder)
    found = opened.end_ids(opened.load_model())
    assert found == stops_at(folder, name == "llava")
    # The tokenizer has an end of its own, and LlamaConfig a default: neither is added.
    if what.startswith("nobody"):
        assert found == frozenset()
