"""Folders that hold more than config.json announces, or another thing than it says."""

from __future__ import annotations

import json
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="exporting needs torch")

import safetensors.torch  # noqa: E402

from tightrope.errors import UnsupportedModel  # noqa: E402
from tightrope.export.checkpoint import open_checkpoint  # noqa: E402

Find = Callable[[str], Path]
Edit = Callable[[dict[str, Any]], object]
Copy = Callable[[str], Path]


@pytest.fixture
def copy(checkpoint: Find, tmp_path: Path) -> Copy:
    """`copy("llama")`: a checkpoint that may be damaged."""
    return lambda name: Path(shutil.copytree(checkpoint(name), tmp_path / "checkpoint"))


def edit_config(folder: Path, edit: Edit) -> None:
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    edit(values)
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")


def edit_tensors(folder: Path, edit: Edit) -> None:
    file = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    edit(tensors)
    safetensors.torch.save_file(tensors, file, metadata={"format": "pt"})


@pytest.mark.parametrize("value", [-1, 2**70, 2**31, 1e3, "2", True, [2]], ids=repr)
@pytest.mark.parametrize("name", ["num_hidden_layers", "hidden_size", "vocab_size", "head_dim"])
@pytest.mark.parametrize("part", [None, "text_config"])
def test_sizes_that_no_model_has_are_told_before_anything_is_made(
    copy: Copy, part: str | None, name: str, value: Any
) -> None:
    folder = copy("llava" if part else "llama")
    edit_config(folder, lambda c: (c[part] if part else c).update({name: value}))
    with pytest.raises(UnsupportedModel, match=f"config.json has {name} .*; accepted: a whole"):
        open_checkpoint(folder)


def layers(parts: str, shape: int = 16) -> dict[str, Any]:
    return {
        f"model.layers.{i}.{part}": torch.ones(shape) for i in range(3) for part in parts.split()
    }


WITHOUT_PLACE: dict[str, tuple[str, Edit, str]] = {
    "biases that are not announced": (
        "llama",
        lambda t: t.update(layers("self_attn.q_proj.bias self_attn.k_proj.bias")),
        "model.layers.0.self_attn.k_proj.bias.* and 1 more",
    ),
    "norms of queries and keys": (
        "llama",
        lambda t: t.update(layers("self_attn.q_norm.weight")),
        "self_attn.q_norm.weight",
    ),
    "a layer too many": (
        "llama",
        lambda t: t.update(
            {
                k.replace("layers.2", "layers.3"): v.clone()
                for k, v in [*t.items()]
                if "layers.2" in k
            }
        ),
        "model.layers.3.input_layernorm.weight",
    ),
    "scales of quantised weights": (
        "llama",
        lambda t: t.update(layers("mlp.up_proj.weight_scale_inv")),
        "weight_scale_inv",
    ),
    "a LoRA adapter": (
        "llama",
        lambda t: t.update({"model.layers.0.self_attn.q_proj.lora_A.weight": torch.ones(4, 64)}),
        "lora_A.weight",
    ),
    "an output bias": (
        "qwen2",
        lambda t: t.update({"model.layers.0.self_attn.o_proj.bias": torch.ones(64)}),
        "o_proj.bias",
    ),
    "a newline of pictures": (
        "llava",
        lambda t: t.update({"model.image_newline": torch.ones(64)}),
        "image_newline",
    ),
}


@pytest.mark.parametrize("what", WITHOUT_PLACE)
def test_a_tensor_without_a_place_is_refused_by_name(copy: Copy, what: str) -> None:
    name, edit, said = WITHOUT_PLACE[what]
    folder = copy(name)
    edit_tensors(folder, edit)
    with pytest.raises(UnsupportedModel, match=f"tensors of the checkpoint that.*{said}"):
        open_checkpoint(folder).load_model()


def test_old_buffers_are_counted_as_without_effect(copy: Copy) -> None:
    folder = copy("llava")
    old = {
        "model.language_model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8),
        "model.vision_tower.embeddings.position_ids": torch.arange(17)[None],
    }
    edit_tensors(folder, lambda tensors: tensors.update(old))
    opened = open_checkpoint(folder)
    opened.load_model()
    assert {entry.name for entry in opened.without_effect} == set(old)


def test_names_of_2023_are_places_too(copy: Copy, checkpoint: Find) -> None:
    folder = copy("llava")

    def rename(tensors: dict[str, Any]) -> None:
        for name in list(tensors):
            # transformers itself writes language_model.model and so on.
            old = name.replace("vision_tower.", "vision_tower.vision_model.")
            tensors[old] = tensors.pop(name)
        tensors["vision_tower.vision_model.embeddings.position_ids"] = torch.arange(17)[None]

    edit_tensors(folder, rename)
    opened = open_checkpoint(folder)
    read, wanted = opened.load_model(), open_checkpoint(checkpoint("llava")).load_model()
    for (name, value), other in zip(
        read.state_dict().items(), wanted.state_dict().values(), strict=True
    ):
        assert torch.equal(value, other), name
    assert [entry.reason for entry in opened.without_effect] == ["position_ids count from 0"]
    edit_tensors(
        folder, lambda t: t.update({"language_model.model.layers.0.extra.weight": torch.ones(2)})
    )
    with pytest.raises(UnsupportedModel, match=r"layers\.0\.extra\.weight"):
        open_checkpoint(folder).load_model()


def test_a_plain_folder_has_nothing_left(checkpoint: Find) -> None:
    for name in ("llama", "qwen2", "llava", "reference"):
        opened = open_checkpoint(checkpoint(name))
        opened.load_model()
        assert opened.without_effect == []


def test_a_folder_of_any_text_family_has_nothing_left(text_family: str, checkpoint: Find) -> None:
    opened = open_checkpoint(checkpoint(text_family))
    opened.load_model()
    assert opened.without_effect == []


def gemma3_of_2025(config: dict[str, Any]) -> None:
    del config["rope_parameters"], config["layer_types"]
    config |= {
        "rope_theta": 1e6,
        "rope_local_base_freq": 1e4,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        "sliding_window_pattern": 2,
    }


def phi3_of_2024(config: dict[str, Any]) -> None:
    rope = config.pop("rope_parameters")
    factors = {name: rope[name] for name in ("short_factor", "long_factor")}
    config |= {
        "rope_theta": 1e4,
        "partial_rotary_factor": 0.75,
        "rope_scaling": {"type": "longrope", **factors},
    }


PUBLISHED: dict[str, Edit] = {
    "qwen3": lambda c: (c.pop("rope_parameters"), c.update(rope_theta=1e4)),
    "gemma3": gemma3_of_2025,
    "phi3": phi3_of_2024,
}
"""As the families' checkpoints were published before transformers 5."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_older_words_for_rotary_positions_mean_the_same(
    copy: Copy, checkpoint: Find, name: str
) -> None:
    folder = copy(name)
    edit_config(folder, PUBLISHED[name])
    read, wanted = (open_checkpoint(source).load_model() for source in (folder, checkpoint(name)))
    assert getattr(read.config, "layer_types", None) == getattr(wanted.config, "layer_types", None)
    for (buffer, value), other in zip(
        read.named_buffers(), (value for _, value in wanted.named_buffers()), strict=True
    ):
        assert torch.equal(value, other), buffer


def test_a_head_of_its_own_in_a_tied_model_is_told(copy: Copy) -> None:
    folder = copy("qwen2")
    edit_tensors(folder, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"] + 1}))
    with pytest.raises(UnsupportedModel, match=r"lm_head\.weight.*tie_word_embeddings"):
        open_checkpoint(folder).load_model()


def test_a_head_that_is_the_embeddings_may_be_stored_twice(copy: Copy) -> None:
    folder = copy("qwen2")
    edit_tensors(
        folder, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()})
    )
    model = open_checkpoint(folder).load_model()
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32"])
def test_weights_that_are_codes_are_refused(copy: Copy, dtype: str) -> None:
    folder, name = copy("llama"), "model.layers.0.mlp.up_proj.weight"
    edit_tensors(folder, lambda t: t.update({name: t[name].to(getattr(torch, dtype))}))
    with pytest.raises(UnsupportedModel, match=f"no plain floats: {name}"):
        open_checkpoint(folder).load_model()


UNREAD = ("bitsandbytes", "fp8", "mxfp4", "unheard-of")
INSIDE = ("awq", "gptq", "compressed-tensors", *UNREAD)
"""A language model that is quantised by itself: published so are models as a whole."""


@pytest.mark.parametrize(
    ("name", "method"),
    [*(("llama", method) for method in UNREAD), *(("llava", method) for method in INSIDE)],
)
def test_a_quantised_checkpoint_is_refused_by_its_method(
    copy: Copy, name: str, method: str
) -> None:
    folder = copy(name)
    entry = {"quantization_config": {"quant_method": method, "bits": 4}}
    edit_config(folder, lambda c: c.get("text_config", c).update(entry))
    with pytest.raises(UnsupportedModel, match=f"is quantised by {method} "):
        open_checkpoint(folder)


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_of_the_checkpoints_own_is_never_run(copy: Copy, file: str) -> None:
    folder = copy("llama")
    (folder / "evil.py").write_text("raise SystemExit", encoding="utf-8")
    values = json.loads((folder / file).read_text(encoding="utf-8"))
    values["auto_map"] = {"AutoConfig": "evil.C", "AutoTokenizer": ["evil.T", None]}
    (folder / file).write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(UnsupportedModel, match=f"^{file} has an auto_map"):
        open_checkpoint(folder).tokenizer()


ROPE: dict[str, tuple[dict[str, Any], str | None]] = {
    "linear": ({"rope_type": "linear", "factor": 2.0}, None),
    "its older name": ({"type": "linear", "factor": 2.0}, None),
    "yarn": ({"rope_type": "yarn", "factor": 2.0, "beta_fast": 32}, None),
    "unheard of": ({"rope_type": "spiral"}, "rope_type is 'spiral'; accepted: default, linear"),
    "that follows the length": ({"rope_type": "dynamic", "factor": 2.0}, "rope_type is 'dynamic'"),
    "in three directions": (
        {"rope_type": "default", "mrope_section": [1, 2, 3]},
        "keys of rope_.* that.*mrope_section",
    ),
    "two kinds at once": ({"rope_type": "default", "type": "linear", "factor": 2.0}, "and type"),
    "part of a head": ({"rope_type": "default", "partial_rotary_factor": 0.5}, "partial_rotary"),
    "a key that transformers passes over": (
        {"rope_type": "linear", "factor": 2.0, "attention_factor": 3.0},
        "attention_factor",
    ),
    "a key that another family reads": (
        {"rope_type": "yarn", "factor": 2.0, "llama_4_scaling_beta": 0.1},
        "llama_4_scaling_beta",
    ),
    "a rule for each type of layer": (
        {"full_attention": {"rope_type": "default", "rope_theta": 1e4}},
        "keys of rope_.* that.*full_attention",
    ),
    "factors for two lengths": (
        {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8},
        None,
    ),
    "a longrope key that transformers passes over": (
        {"rope_type": "longrope", "short_mscale": 1.2},
        "short_mscale",
    ),
    "another name of a yarn key": (
        {"rope_type": "yarn", "factor": 2.0, "attn_factor": 3.0},
        "attn_factor",
    ),
}


@pytest.mark.parametrize("what", ROPE)
@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
def test_every_key_of_rotary_positions_is_read_or_named(copy: Copy, what: str, key: str) -> None:
    folder = copy("llama")
    values, said = ROPE[what]
    edit_config(folder, lambda c: (c.pop("rope_parameters"), c.update({key: values})))
    if said is None:
        open_checkpoint(folder)
        return
    with pytest.raises(UnsupportedModel, match=said) as raised:
        open_checkpoint(folder)
    assert "\n" not in str(raised.value)


RULES: dict[str, tuple[str, Edit, str | None]] = {
    "a part of a head, where the code knows it": (
        "phi3",
        lambda c: c["rope_parameters"].update(partial_rotary_factor=0.75),
        None,
    ),
    "a part of a head beside the rules": (
        "qwen3",
        lambda c: c.update(partial_rotary_factor=0.5),
        "partial_rotary_factor is 0.5",
    ),
    "local layers that follow the length": (
        "gemma3",
        lambda c: c["rope_parameters"]["sliding_attention"].update(rope_type="dynamic"),
        "rope_type is 'dynamic'",
    ),
    "a key beside the rules of both": (
        "gemma3",
        lambda c: c["rope_parameters"].update(factor=2.0),
        "keys of rope_parameters that.*factor",
    ),
}


@pytest.mark.parametrize("what", RULES)
def test_rules_of_a_family_are_read_where_its_code_reads_them(copy: Copy, what: str) -> None:
    name, edit, said = RULES[what]
    folder = copy(name)
    edit_config(folder, edit)
    if said is None:
        open_checkpoint(folder)
        return
    with pytest.raises(UnsupportedModel, match=said):
        open_checkpoint(folder)


def header(entries: dict[str, Any], data: int = 64, length: int | None = None) -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + bytes(data)


def entry(
    start: int, end: int, dtype: str = "F32", shape: tuple[Any, ...] = (8,)
) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


SAFETENSORS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "header claims 0 bytes, the file has 0"),
    "a header longer than the file": (header({}, length=1 << 40), "claims 1099511627776 bytes"),
    "a header that is no JSON": (struct.pack("<Q", 8) + b"{" * 8, "cannot be loaded: Expecting"),
    "a header that is a list": (struct.pack("<Q", 2) + b"[]", "cannot be loaded"),
    "no offsets": (header({"a": {"dtype": "F32", "shape": [8]}}), "data_offsets. is missing"),
    "tensors that overlap": (
        header({"a": entry(0, 32), "b": entry(16, 48)}),
        "a and b overlap",
    ),
    "tensors with a gap": (header({"a": entry(0, 32), "b": entry(33, 65)}, 65), "leave a gap"),
    "an end before the start": (header({"a": entry(32, 0)}), "a lies from 32 to 0"),
    "a size that is not the shape's": (header({"a": entry(0, 64)}), "its shape takes 32 bytes"),
    "an offset beyond the file": (header({"a": entry(1 << 40, (1 << 40) + 32)}), "lie from 1099"),
    "data that nobody has": (header({"a": entry(0, 32)}), "from 0 to 32, the data has 64"),
    "a dtype unheard of": (header({"a": entry(0, 64, "X9")}), "a has dtype 'X9'; read here: F64"),
    "weights of eight bits": (header({"a": entry(0, 8, "F8_E4M3")}), "a has dtype 'F8_E4M3'"),
    "a shape below zero": (header({"a": entry(0, 32, "F32", (-8,))}), r"a has shape \[-8\]"),
    "a shape of words": (header({"a": entry(0, 32, "F32", ("8",))}), "a has shape"),
    "a product beyond 64 bits": (
        header({"a": entry(0, 64, "F32", (1 << 40, 1 << 40))}),
        "its shape takes 4835703278458516698824704 bytes",
    ),
}


@pytest.mark.parametrize("what", SAFETENSORS)
def test_each_damage_of_safetensors_is_told(copy: Copy, what: str) -> None:
    content, said = SAFETENSORS[what]
    folder = copy("llama")
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(UnsupportedModel, match=f"cannot be loaded.*{said}|{said}") as raised:
        open_checkpoint(folder).load_model()
    assert "model.safetensors" in str(raised.value) and "\n" not in str(raised.value)


def test_safetensors_in_any_order_are_read(copy: Copy) -> None:
    folder = copy("llama")
    file = folder / "model.safetensors"
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    entries = json.loads(content[8 : 8 + length])
    turned = json.dumps(dict(reversed(entries.items()))).encode()
    file.write_bytes(struct.pack("<Q", len(turned)) + turned + content[8 + length :])
    open_checkpoint(folder).load_model()


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('code of a pickle was run')",))


PICKLES: dict[str, tuple[Any, str]] = {
    "an object of its own": ({"a": Evil()}, "hold tensors alone"),
    "a number": ({"a": torch.ones(2), "epoch": 3}, "what is no tensor: epoch; a .bin file may"),
    "a list": ([torch.ones(2)], "it holds a list"),
}


@pytest.mark.parametrize("what", PICKLES)
def test_a_bin_file_holds_tensors_alone(copy: Copy, what: str) -> None:
    content, said = PICKLES[what]
    folder = copy("llama")
    (folder / "model.safetensors").unlink()
    torch.save(content, folder / "pytorch_model.bin")
    with pytest.raises(UnsupportedModel, match=said):
        open_checkpoint(folder).load_model()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(content if what != "a number" else 1))
    with pytest.raises(UnsupportedModel, match="cannot be loaded"):
        open_checkpoint(folder).load_model()


def test_bin_files_in_pieces_are_read_and_accounted(copy: Copy) -> None:
    folder = copy("llama")
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    halves = {"pytorch_model-1.bin": names[::2], "pytorch_model-2.bin": names[1::2]}
    for file, part in halves.items():
        torch.save({name: tensors[name] for name in part}, folder / file)
    index = {
        "metadata": {},
        "weight_map": {name: file for file, part in halves.items() for name in part},
    }
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index), encoding="utf-8")
    model = open_checkpoint(folder).load_model()
    assert torch.equal(model.state_dict()["model.norm.weight"], tensors["model.norm.weight"])
    torch.save({"extra": torch.ones(2)}, folder / "pytorch_model-2.bin")
    with pytest.raises(UnsupportedModel, match=r"missing tensors|nothing here reads"):
        open_checkpoint(folder).load_model()
    (folder / "pytorch_model-1.bin").unlink()
    with pytest.raises(UnsupportedModel, match=r"names pytorch_model-1\.bin, which are missing"):
        open_checkpoint(folder).load_model()
