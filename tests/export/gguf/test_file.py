"""What people hand in as GGUF: whole, in parts, among other files, or no model at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="exporting needs torch")
pytest.importorskip("gguf", reason="exporting needs gguf")

from tightrope.errors import UnsupportedModel  # noqa: E402
from tightrope.export.checkpoint import open_checkpoint  # noqa: E402

Make = Callable[..., tuple[Any, Path]]


@pytest.fixture
def parts(gguf_files: ModuleType, make: Make, tmp_path: Path) -> tuple[Any, list[Path]]:
    """A model, and its file in three parts."""
    model, whole = make("llama")
    tensors = gguf_files.tensors_of(model, "llama")
    names = list(tensors)
    written = []
    for number, part in enumerate((names[:5], names[5:6], names[6:])):
        keys = {"split.no": number, "split.count": 3, "split.tensors.count": len(names)}
        if number == 0:
            keys |= open_checkpoint(whole).gguf.file.metadata  # type: ignore[union-attr]
            del keys["general.architecture"]
        file = tmp_path / f"model of ours-{number + 1:05d}-of-00003.gguf"
        held = {name: tensors[name] for name in part}
        written.append(gguf_files.write(file, keys, held, "llama"))
    return model, written


def same(read: Any, model: Any) -> bool:
    wanted = model.state_dict()
    return all(torch.equal(value, wanted[name]) for name, value in read.state_dict().items())


@pytest.mark.parametrize("given", [0, 1, 2])
def test_a_split_file_is_read_whole_from_any_part(
    parts: tuple[Any, list[Path]], given: int
) -> None:
    model, files = parts
    assert same(open_checkpoint(files[given]).load_model(), model)


def test_parts_that_are_missing_are_named(parts: tuple[Any, list[Path]]) -> None:
    _, files = parts
    files[1].unlink()
    files[2].unlink()
    said = "one of 3 parts, of which are missing: model of ours-00002-of-00003.gguf, model"
    with pytest.raises(UnsupportedModel, match=said):
        open_checkpoint(files[0])


def test_a_part_under_another_name_is_told(parts: tuple[Any, list[Path]]) -> None:
    _, files = parts
    other = shutil.move(files[0], files[0].with_name("model.gguf"))
    with pytest.raises(UnsupportedModel, match="one of 3 parts, but is not named so"):
        open_checkpoint(other)


def test_parts_that_do_not_belong_together_are_told(
    gguf_files: ModuleType, parts: tuple[Any, list[Path]]
) -> None:
    _, files = parts
    keys = {"split.no": 1, "split.count": 3}
    gguf_files.write(files[1], keys, {"extra": np.ones(4, np.float32)}, "llama")
    gguf_files.write(files[2], keys, {"extra": np.ones(4, np.float32)}, "llama")
    with pytest.raises(UnsupportedModel, match="holds extra, which another part holds too"):
        open_checkpoint(files[0])
    gguf_files.write(files[2], keys, {"more": np.ones(4, np.float32)}, "llama")
    with pytest.raises(UnsupportedModel, match="announces 3 parts with 21 tensors, there are 3 w"):
        open_checkpoint(files[0])


def test_a_part_that_is_damaged_is_named(parts: tuple[Any, list[Path]]) -> None:
    _, files = parts
    files[1].write_bytes(files[1].read_bytes()[:-200])
    with pytest.raises(UnsupportedModel, match=r"00002-of-00003\.gguf ends before"):
        open_checkpoint(files[2])


@pytest.mark.parametrize("name", ["M.GGUF", "m.Gguf", "ein Ordner ß 漢/mein Modell (Q8).gguf"])
def test_any_name_that_ends_in_gguf_is_one(make: Make, tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    model, file = make("llama", name=name)
    assert same(open_checkpoint(file).load_model(), model)


def test_version_2_is_read(make: Make) -> None:
    model, file = make("llama")
    content = bytearray(file.read_bytes())
    content[4] = 2
    file.write_bytes(content)
    assert same(open_checkpoint(file).load_model(), model)


OTHERS: dict[str, tuple[str, dict[str, Any], str]] = {
    "a LoRA adapter": ("llama", {"general.type": "adapter"}, "is a LoRA adapter, not a model"),
    "a tower": ("clip", {"clip.has_vision_encoder": True}, "is the vision half of a model"),
    "a tower that says so": ("clip", {"general.type": "mmproj"}, "is the vision half of a model"),
    "a quantiser's file": ("llama", {"general.type": "imatrix"}, "is a quantiser's statistics"),
    "something else": ("llama", {"general.type": "hat"}, "calls itself a 'hat'"),
    "embeddings of texts": ("bert", {}, "architecture 'bert' have no reader; there are: llama"),
    "another architecture": ("falcon", {}, "architecture 'falcon' have no reader"),
}


@pytest.mark.parametrize("what", OTHERS)
def test_what_is_no_model_is_refused_with_what_it_is(
    gguf_files: ModuleType, tmp_path: Path, what: str
) -> None:
    architecture, keys, said = OTHERS[what]
    tensors = {"blk.0.attn_q.weight.lora_a": np.ones((4, 4), np.float32)}
    file = gguf_files.write(tmp_path / "m.gguf", keys, tensors, architecture)
    with pytest.raises(UnsupportedModel, match=said):
        open_checkpoint(file)


def test_a_vocabulary_alone_is_no_model(
    gguf_files: ModuleType, vocabulary: dict[str, Any], tmp_path: Path
) -> None:
    file = gguf_files.write(tmp_path / "m.gguf", vocabulary, {}, "llama")
    with pytest.raises(UnsupportedModel, match="is a vocabulary without weights"):
        open_checkpoint(file)


NEIGHBOURS: dict[str, str] = {
    "chat_template.json": json.dumps({"chat_template": "WRONG"}),
    "chat_template.jinja": "WRONG {% if %}",
    "generation_config.json": json.dumps({"eos_token_id": [7, 9]}),
    "config.json": json.dumps({"model_type": "gemma3", "hidden_size": 32}),
    "tokenizer.json": "{",
    "tokenizer_config.json": json.dumps({"eos_token": "<x>", "auto_map": {"AutoTokenizer": "x"}}),
    "special_tokens_map.json": json.dumps({"eos_token": "WRONG"}),
    "added_tokens.json": json.dumps({"<new>": 700}),
    "README.md": "---\nlicense: wrong\n---",
    "model.safetensors": "wrong",
    "processor_config.json": "{",
}


def facts(file: Path) -> Any:
    opened = open_checkpoint(file)
    tokenizer = opened.tokenizer()
    model = opened.load_model()
    return (
        tokenizer.backend_tokenizer.to_str(),
        tokenizer.special_tokens_map,
        opened.chat_template(tokenizer, None),
        opened.end_ids(model),
        opened.config.to_dict(),
        opened.licence(),
        opened.revision(),
        model.state_dict()["model.norm.weight"].tolist(),
    )


def test_files_beside_a_gguf_are_not_its_own(make: Make) -> None:
    _, file = make(
        "llama",
        metadata={"tokenizer.chat_template": "RIGHT", "general.license": "mit"},
    )
    alone = facts(file)
    assert alone[2] == "RIGHT" and alone[5] == "mit"
    for name, content in NEIGHBOURS.items():
        (file.parent / name).write_text(content, encoding="utf-8")
        assert facts(file) == alone, name
    shutil.copy(file, file.with_name("a.gguf"))
    assert facts(file) == alone
