"""Logits of GGUF files against the Hugging Face models that they were made of."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="exporting needs torch")
gguf = pytest.importorskip("gguf", reason="exporting needs gguf")

from tightrope.errors import UnsupportedModel  # noqa: E402
from tightrope.export import parity  # noqa: E402
from tightrope.export.checkpoint import open_checkpoint  # noqa: E402
from tightrope.export.families import FAMILIES  # noqa: E402
from tightrope.export.gguf import oracle  # noqa: E402
from tightrope.export.gguf.architectures import ARCHITECTURES  # noqa: E402

VOCABULARY, TOKENS = 300, 320
Make = Callable[..., tuple[Any, Path]]
ROPE: dict[str, dict[str, Any]] = {
    "linear": {"rope_type": "linear", "factor": 3.0},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128},
    "yarn, own bounds": {
        "rope_type": "yarn",
        "factor": 8.0,
        "original_max_position_embeddings": 64,
        "beta_fast": 16.0,
        "beta_slow": 2.0,
    },
    "yarn, own length": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 128,
        "attention_factor": 1.5,
    },
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
}
EXPERTS = {
    "head_dim": 16,
    "num_experts": 5,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 22,
    "norm_topk_prob": True,
}
GEMMA2 = {
    "num_hidden_layers": 3,
    "head_dim": 24,
    "query_pre_attn_scalar": 24,
    "sliding_window": 16,
    "attn_logit_softcapping": 2.0,
    "final_logit_softcapping": 3.0,
}
GEMMA3 = {
    "num_hidden_layers": 7,
    "head_dim": 24,
    "query_pre_attn_scalar": 24,
    "sliding_window": 16,
    "initializer_range": 0.1,
}
MISTRAL3: dict[str, Any] = {
    "head_dim": 24,
    "rope_parameters": {
        **ROPE["yarn"],
        "rope_theta": 1e4,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "llama_4_scaling_beta": 0.4,
    },
}
LFM2: dict[str, Any] = {
    "num_hidden_layers": 4,
    "layer_types": ["conv", "full_attention", "conv", "full_attention"],
    "block_multiple_of": 8,
}
SECTIONS = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
GRANITE = {
    "attention_multiplier": 0.3,
    "embedding_multiplier": 1.7,
    "residual_multiplier": 0.4,
    "logits_scaling": 2.5,
}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("llama", {}),
    "one KV head": ("llama", {"num_key_value_heads": 1}),
    "a head each": ("llama", {"num_key_value_heads": 4}),
    "wide heads": ("llama", {"head_dim": 24}),
    "narrow heads": ("llama", {"head_dim": 6}),
    "odd widths": (
        "llama",
        {
            "hidden_size": 60,
            "num_attention_heads": 5,
            "num_key_value_heads": 5,
            "intermediate_size": 77,
        },
    ),
    "three query heads a KV head": (
        "llama",
        {"hidden_size": 36, "num_attention_heads": 6, "num_key_value_heads": 2},
    ),
    "tied": ("llama", {"tie_word_embeddings": True}),
    "attention biases": ("llama", {"attention_bias": True}),
    "all biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "another base": ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}),
    "another epsilon": ("llama", {"rms_norm_eps": 0.01}),
    **{
        f"llama, {name}": ("llama", {"rope_parameters": {"rope_theta": 1e4, **rope}})
        for name, rope in ROPE.items()
    },
    "llama3, wide heads": (
        "llama",
        {"head_dim": 32, "rope_parameters": {"rope_theta": 1e4, **ROPE["llama3"]}},
    ),
    "qwen2": ("qwen2", {}),
    "qwen2, tied": ("qwen2", {"tie_word_embeddings": True}),
    "qwen2, wide heads": ("qwen2", {"head_dim": 24}),
    "qwen2, yarn": ("qwen2", {"rope_parameters": {"rope_theta": 1e6, **ROPE["yarn"]}}),
    "qwen2, linear": ("qwen2", {"rope_parameters": {"rope_theta": 1e6, **ROPE["linear"]}}),
    "qwen3": ("qwen3", {"head_dim": 24}),
    "qwen3, biases, tied": (
        "qwen3",
        {"head_dim": 16, "attention_bias": True, "tie_word_embeddings": True},
    ),
    "qwen3, yarn": (
        "qwen3",
        {"head_dim": 16, "rope_parameters": {"rope_theta": 1e6, **ROPE["yarn"]}},
    ),
    "qwen3moe": ("qwen3moe", EXPERTS),
    "qwen3moe, one expert a token": ("qwen3moe", EXPERTS | {"num_experts_per_tok": 1}),
    "smollm3": ("smollm3", {"num_hidden_layers": 5}),
    "smollm3, biases, yarn, tied": (
        "smollm3",
        {
            "num_hidden_layers": 4,
            "attention_bias": True,
            "mlp_bias": True,
            "tie_word_embeddings": True,
            "rope_parameters": {"rope_theta": 1e4, **ROPE["yarn"]},
        },
    ),
    "gemma2": ("gemma2", GEMMA2),
    "gemma2, windows beyond the context": ("gemma2", GEMMA2 | {"sliding_window": 4096}),
    "gemma2 of 46 layers": (
        "gemma2",
        GEMMA2 | {"num_hidden_layers": 46, "query_pre_attn_scalar": 16},
    ),
    "gemma3": ("gemma3", GEMMA3),
    "gemma3 of 62 layers": (
        "gemma3",
        GEMMA3 | {"num_hidden_layers": 62, "query_pre_attn_scalar": 16},
    ),
    "gemma3, scaled, capped": (
        "gemma3",
        GEMMA3
        | {
            "final_logit_softcapping": 3.0,
            "rope_parameters": {
                "full_attention": {"rope_theta": 1e6, **ROPE["linear"]},
                "sliding_attention": {"rope_type": "default", "rope_theta": 5e3},
            },
        },
    ),
    "gemma3, windows beyond the context": ("gemma3", GEMMA3 | {"sliding_window": 4096}),
    "phi3": ("phi3", {}),
    "phi3, a window, tied": ("phi3", {"sliding_window": 16, "tie_word_embeddings": True}),
    "phi3, part of a head by longrope": (
        "phi3",
        {
            "max_position_embeddings": 4096,
            "original_max_position_embeddings": 1024,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 1e4,
                "partial_rotary_factor": 0.75,
                "short_factor": [1.0, 1.1, 1.3, 1.6, 2.0, 2.5],
                "long_factor": [1.0, 2.0, 4.0, 8.0, 16.0, 32.0],
            },
        },
    ),
    "phi3, part of a head": (
        "phi3",
        {
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "partial_rotary_factor": 0.4,
            }
        },
    ),
    "granite": ("granite", GRANITE),
    "granite, biases, tied": (
        "granite",
        GRANITE | {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    ),
    "mistral3": ("mistral3", MISTRAL3),
    "mistral3, one of the scales": (
        "mistral3",
        {"rope_parameters": MISTRAL3["rope_parameters"] | {"mscale_all_dim": 0.5}},
    ),
    "lfm2": ("lfm2", LFM2),
    "lfm2, four inputs, an own head, wider layers": (
        "lfm2",
        LFM2 | {"conv_L_cache": 4, "tie_word_embeddings": False, "block_ffn_dim_multiplier": 1.5},
    ),
    "qwen2vl": ("qwen2vl", {"rope_parameters": SECTIONS}),
    "qwen3vl": (
        "qwen3vl",
        {"head_dim": 16, "rope_parameters": SECTIONS | {"mrope_interleaved": True}},
    ),
}

AS_LLAMA = {"mistral", "ministral"}
"""Families whose files say `llama`."""

DEEP = ("gemma2 of 46 layers", "gemma3 of 62 layers")


def logits(model: Any) -> Any:
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, VOCABULARY, TOKENS))[None]
    with torch.no_grad():
        return model(ids, use_cache=False).logits[0].numpy()


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_file_is_the_model_that_it_was_made_of(make: Make, variant: str) -> None:
    architecture, changes = VARIANTS[variant]
    model, file = make(architecture, **changes)
    read = open_checkpoint(file).load_model()
    wanted = logits(model)
    np.testing.assert_allclose(logits(read), wanted, atol=2e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_files_own_tensors_give_the_same_logits_without_the_reader(
    make: Make, variant: str
) -> None:
    architecture, changes = VARIANTS[variant]
    model, file = make(architecture, **changes)
    opened = open_checkpoint(file).gguf
    ids = np.random.default_rng(0).integers(0, VOCABULARY, 40)
    # Against the model that the file was made of: the reader gave nothing but the file's parts.
    distance = parity.held_against_file(opened, model, ids)
    # Rounding grows with depth.
    assert distance is not None and distance < (1e-3 if variant in DEEP else 1e-4)


def test_every_family_has_files_that_are_read_and_held_against_them() -> None:
    read = {architecture.model_type for architecture in ARCHITECTURES.values()}
    assert {name for name, family in FAMILIES.items() if family.tower is None} == read | AS_LLAMA
    decoders = {family.decoder for family in FAMILIES.values()} - {None}
    assert decoders == {"qwen2_5_vl_text", "qwen3_vl_text"}  # "qwen2vl", "qwen3vl"
    assert {*oracle._ARCHITECTURES} == {*ARCHITECTURES} == {name for name, _ in VARIANTS.values()}


@pytest.mark.parametrize("variant", DEEP)
def test_the_scale_of_the_largest_gemmas_is_another(
    make: Make, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    architecture, changes = VARIANTS[variant]
    model, file = make(architecture, **changes)
    usual = replace(oracle._ARCHITECTURES[architecture], largest=0)
    monkeypatch.setitem(oracle._ARCHITECTURES, architecture, usual)
    with pytest.raises(UnsupportedModel, match="was not read as it stands"):
        parity.held_against_file(open_checkpoint(file).gguf, model, np.arange(5, 45))


LOST: dict[str, tuple[str, dict[str, Any], Callable[[Any], object]]] = {
    "a bias": (
        "llama",
        {"attention_bias": True},
        lambda model: model.model.layers[1].self_attn.k_proj.bias.data.zero_(),
    ),
    "a norm": ("llama", {}, lambda model: model.model.norm.weight.data.fill_(1)),
    "the pairs of queries": (
        "llama",
        {},
        lambda model: model.model.layers[0].self_attn.q_proj.weight.data.copy_(
            model.model.layers[0].self_attn.q_proj.weight.data.flip(0)
        ),
    ),
    "the norms of queries": (
        "qwen3",
        {"head_dim": 24},
        lambda model: model.model.layers[0].self_attn.q_norm.weight.data.fill_(1),
    ),
    "the one of norms": (
        "gemma2",
        GEMMA2,
        lambda model: model.model.norm.weight.data.add_(1),
    ),
    "the layers that rotate nothing": (
        "smollm3",
        {"num_hidden_layers": 4},
        lambda model: setattr(model.model.layers[3].self_attn, "use_rope", True),
    ),
    "the base of local layers": (
        "gemma3",
        GEMMA3,
        lambda model: model.model.rotary_emb.sliding_attention_inv_freq.copy_(
            model.model.rotary_emb.full_attention_inv_freq
        ),
    ),
    "the cap of scores": (
        "gemma2",
        GEMMA2,
        lambda model: setattr(model.model.layers[1].self_attn, "attn_logit_softcapping", None),
    ),
    "the order of gate and up": (
        "phi3",
        {},
        lambda model: model.model.layers[0].mlp.gate_up_proj.weight.data.copy_(
            model.model.layers[0].mlp.gate_up_proj.weight.data.roll(96, 0)
        ),
    ),
    "the gates of experts": (
        "qwen3moe",
        EXPERTS,
        lambda model: model.model.layers[0].mlp.experts.gate_up_proj.data.copy_(
            model.model.layers[0].mlp.experts.gate_up_proj.data.roll(22, 1)
        ),
    ),
    "how queries grow": (
        "mistral3",
        MISTRAL3,
        lambda model: model.config.rope_parameters.update(llama_4_scaling_beta=0.0),
    ),
    "the order of a convolution": (
        "lfm2",
        LFM2,
        lambda model: model.model.layers[0].conv.conv.weight.data.copy_(
            model.model.layers[0].conv.conv.weight.data.flip(-1)
        ),
    ),
    "how much a layer adds": (
        "granite",
        GRANITE,
        lambda model: setattr(model.model.layers[1], "residual_multiplier", 1.0),
    ),
    **{
        f"the rotary rule {name}": (
            "llama",
            {"rope_parameters": {"rope_theta": 1e4, **rope}},
            lambda model: model.model.rotary_emb.inv_freq.copy_(
                1e4 ** (-torch.arange(0, 16, 2) / 16)
            ),
        )
        for name, rope in ROPE.items()
    },
}


@pytest.mark.parametrize("what", LOST)
def test_what_a_reader_would_lose_is_told(make: Make, what: str) -> None:
    architecture, changes, lose = LOST[what]
    _, file = make(architecture, **changes)
    checkpoint = open_checkpoint(file)
    model = checkpoint.load_model()
    lose(model)
    ids = np.random.default_rng(0).integers(0, VOCABULARY, 40)
    with pytest.raises(UnsupportedModel, match="was not read as it stands"):
        parity.held_against_file(checkpoint.gguf, model, ids)


def test_a_variant_changes_the_logits(make: Make) -> None:
    """The comparison above would see a rotary rule, a bias or a width that is lost."""
    plain = logits(make("llama")[0])
    for rope in ROPE.values():
        model, _ = make("llama", rope_parameters={"rope_theta": 1e4, **rope})
        assert np.abs(logits(model) - plain).max() > 0.1
    assert np.abs(logits(make("llama", attention_bias=True)[0]) - plain).max() > 0.1


def test_windows_are_the_layers_that_the_pattern_names(make: Make) -> None:
    model, file = make(
        "qwen2",
        metadata={
            "qwen2.attention.sliding_window": 16,
            "qwen2.attention.sliding_window_pattern": [False, True],
        },
        use_sliding_window=True,
        sliding_window=16,
        layer_types=["full_attention", "sliding_attention"],
    )
    read = open_checkpoint(file).load_model()
    np.testing.assert_allclose(logits(read), logits(model), atol=1e-4)
    assert np.abs(logits(make("qwen2")[0]) - logits(model)).max() > 0.1


def test_a_window_as_long_as_the_context_is_none(make: Make) -> None:
    model, file = make("llama", metadata={"llama.attention.sliding_window": 512})
    np.testing.assert_allclose(logits(open_checkpoint(file).load_model()), logits(model), atol=1e-4)


def test_biases_that_the_file_leaves_out_are_zero(make: Make) -> None:
    model, file = make(
        "llama",
        attention_bias=True,
        edit=lambda tensors: [tensors.pop(f"blk.{i}.attn_output.bias") for i in range(2)],
    )
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.bias.zero_()
    read = open_checkpoint(file).load_model()
    np.testing.assert_allclose(logits(read), logits(model), atol=1e-4)


WRITABLE = [
    kind
    for kind in gguf.GGMLQuantizationType
    if kind.name in {"F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"}
    or kind.name in {"TQ1_0", "TQ2_0", "MXFP4"}
]


@pytest.mark.parametrize("kind", WRITABLE, ids=lambda kind: kind.name)
def test_each_quantisation_is_undone(gguf_files: ModuleType, make: Make, kind: Any) -> None:
    widths = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 1}
    model, file = make("llama", kind=kind, **widths)
    read = open_checkpoint(file).load_model()
    # The model's own matrices, there and back through the package's codes.
    with torch.no_grad():
        for name, tensor in gguf_files.tensors_of(model, "llama").items():
            if tensor.ndim == 2:
                tensor = gguf.dequantize(gguf.quantize(tensor, kind), kind)
            gguf_files.place(model, name, tensor)
    np.testing.assert_array_equal(logits(read), logits(model))


READABLE = (
    "Q2_K Q3_K Q4_K Q5_K Q6_K IQ2_XXS IQ2_XS IQ2_S IQ3_XXS IQ3_S IQ1_S IQ1_M IQ4_NL IQ4_XS NVFP4"
)


@pytest.mark.parametrize("name", READABLE.split())
def test_quantisations_that_only_llama_cpp_writes_are_undone(
    gguf_files: ModuleType, vocabulary: dict[str, Any], tmp_path: Path, name: str
) -> None:
    kind = gguf.GGMLQuantizationType[name]
    model = gguf_files.model_of(
        gguf_files.config_of("llama", hidden_size=256, intermediate_size=512)
    )
    tensors = gguf_files.tensors_of(model, "llama")
    down = "blk.1.ffn_down.weight"
    block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    # Bytes below 60 make every float16 scale a finite one.
    codes = np.random.default_rng(1).integers(0, 60, (256, 512 // block * block_bytes), np.uint8)
    keys = gguf_files.keys_of(model, "llama") | vocabulary
    tensors[down] = gguf_files.Coded(codes, kind)
    file = gguf_files.write(tmp_path / "m.gguf", keys, tensors)
    read = open_checkpoint(file).load_model().model.layers[1].mlp.down_proj.weight
    np.testing.assert_array_equal(read.numpy(), gguf.dequantize(codes, kind))


@pytest.fixture(scope="session")
def llama_cpp() -> Any:
    """`llama_cpp(jobs)`: what llama.cpp answers, as benchmarks/llama_cpp_peer.py says."""
    here = Path(__file__).parents[3] / "benchmarks" / "llama_cpp_environment.py"
    specification = importlib.util.spec_from_file_location("llama_cpp_environment", here)
    assert specification is not None and specification.loader is not None
    peer = importlib.util.module_from_spec(specification)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(here.parent)
        specification.loader.exec_module(peer)
    if not peer.is_made():
        pytest.skip("llama.cpp is not here: benchmarks/gguf_tokens.py makes its environment")
    return peer.ask


@pytest.mark.slow
def test_llama_cpp_computes_the_same(gguf_files: ModuleType, make: Make, llama_cpp: Any) -> None:
    # llama.cpp takes no embeddings of rows that are no tokens.
    keys = gguf_files.metadata_of(gguf_files.byte_level(["<|end|>"], VOCABULARY))
    ids = np.random.default_rng(0).integers(1, VOCABULARY, TOKENS).tolist()
    ours, jobs = {}, []
    for number, (variant, (architecture, changes)) in enumerate(VARIANTS.items()):
        # llama.cpp's qwen2 has queries as wide as the model; of yarn it passes over the
        # checkpoint's own bounds and length for these architectures, and of phi3 over its windows.
        if variant in ("qwen2, wide heads", "phi3, a window, tied") or "own" in variant:
            continue
        _, file = make(architecture, name=f"{number}.gguf", metadata=keys, **changes)
        jobs.append({"file": str(file), "texts": [], "ids": ids})
        with torch.no_grad():
            read = open_checkpoint(file).load_model()
            ours[variant] = read(torch.tensor([ids]), use_cache=False).logits[0].numpy()
    for (variant, values), answer in zip(ours.items(), llama_cpp(jobs), strict=True):
        scale = np.abs(values).max()
        assert np.abs(values - answer["logits"]).max() / scale < 2e-3, variant
