"""GGUF files whose keys or tensors cannot be followed: refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="exporting needs torch")
pytest.importorskip("gguf", reason="exporting needs gguf")

from tightrope.errors import UnsupportedModel
from tightrope.export.checkpoint import open_checkpoint

Make = Callable[..., tuple[Any, Path]]

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a mixture of experts": ({"llama.expert_count": 8}, "expert_count is 8.*mixtures of experts"),
    "a scaling unheard of": ({"llama.rope.scaling.type": "longrope"}, "type is 'longrope'"),
    "a scaling by nothing": (
        {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": -1.0},
        "factor is -1.0",
    ),
    "part of a head rotated": ({"llama.rope.dimension_count": 8}, "dimension_count is 8; acc.*16"),
    "values of another length": ({"llama.attention.value_length": 8}, "value_length is 8"),
    "a window": ({"llama.attention.sliding_window": 64}, "sliding_window is 64"),
    "attention both ways": ({"llama.attention.causal": False}, "causal is False"),
    "another vocabulary": ({"llama.vocab_size": 299}, "vocab_size is 299; accepted: 300"),
    "heads that differ": (
        {"llama.attention.head_count": [4, 2]},
        r"head_count is \[4, 2\]; accepted: the same in every layer",
    ),
    "no heads": ({"llama.attention.head_count": 0}, "head_count is 0"),
    "no width": ({"llama.embedding_length": None}, "embedding_length is missing"),
    "an epsilon of words": (
        {"llama.attention.layer_norm_rms_epsilon": "small"},
        "epsilon is 'small'; accepted: a number",
    ),
    "too many layers": ({"llama.block_count": 10**9}, "block_count 1000000000 and tensors of 2"),
    "a wider model": ({"llama.feed_forward_length": 1 << 30}, "misshapen tensors"),
    "keys unheard of": (
        {"llama.attention.scale": 0.5, "llama.logit_scale": 2.0, "some.thing": "x"},
        "nothing here reads.*: llama.attention.scale, llama.logit_scale, some.thing; export",
    ),
    "the tokens that are never said": (
        {"tokenizer.ggml.suppress_tokens": [1]},
        "nothing here reads.*suppress_tokens",
    ),
    "yarn with half of it": (
        {"llama.rope.scaling.type": "yarn", "llama.rope.scaling.yarn_ext_factor": 0.5},
        "yarn_ext_factor is 0.5",
    ),
    "attention scaled": ({"llama.rope.scaling.attn_factor": 2.0}, "attn_factor is 2.0"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_metadata_that_cannot_be_followed_is_refused_by_name(make: Make, what: str) -> None:
    metadata, said = REFUSED[what]
    _, file = make("llama", metadata=metadata)
    with pytest.raises(UnsupportedModel, match=said) as raised:
        open_checkpoint(file).load_model()
    assert "\n" not in str(raised.value)


OTHERS: dict[str, tuple[str, dict[str, Any], str]] = {
    "a granite that rotates nothing": (
        "granite",
        {"granite.rope.scaling.finetuned": False},
        "finetuned is False; accepted: True",
    ),
    "a granite without its scale": (
        "granite",
        {"granite.attention.scale": None},
        "attention.scale is missing; accepted: a number",
    ),
    "a gemma without windows": (
        "gemma3",
        {"gemma3.attention.sliding_window": None},
        "sliding_window is missing",
    ),
    "a phi 3 in which windows alternate": (
        "phi3",
        {"phi3.attention.sliding_window": 16, "phi3.attention.sliding_window_pattern": 2},
        "sliding_window_pattern is .*; accepted: all layers",
    ),
    "a phi 3 of another scaling": (
        "phi3",
        {"phi3.rope.scaling.type": "yarn"},
        "type is 'yarn'; accepted: longrope",
    ),
    "a phi 3 without factors": (
        "phi3",
        {"phi3.rope.scaling.type": "longrope"},
        "type is 'longrope'; accepted: longrope with its factors",
    ),
    "heads that turn further than they are long": (
        "phi3",
        {"phi3.rope.dimension_count": 18},
        "dimension_count is 18; accepted: 16",
    ),
    "experts without a width": (
        "qwen3moe",
        {"qwen3moe.expert_feed_forward_length": None},
        "expert_feed_forward_length is missing",
    ),
    "an lfm2 without its convolutions": (
        "lfm2",
        {"lfm2.attention.head_count_kv": 2},
        "head_count_kv is 2; accepted: for each of the 2 layers 0, or the same count",
    ),
    "an lfm2 with heads that differ": (
        "lfm2",
        {"lfm2.attention.head_count_kv": [2, 4]},
        "head_count_kv is .2, 4.; accepted: for each",
    ),
    "an lfm2 in which nothing attends": (
        "lfm2",
        {"lfm2.attention.head_count_kv": [0, 0]},
        "head_count_kv is .0, 0.; accepted: for each",
    ),
    "a convolution of one input": (
        "lfm2",
        {"lfm2.attention.head_count_kv": [0, 2], "lfm2.shortconv.l_cache": 1},
        "l_cache is 1; accepted: 2 or more",
    ),
    "an lfm2 with windows": (
        "lfm2",
        {"lfm2.attention.head_count_kv": [0, 2], "lfm2.attention.sliding_window": 16},
        "sliding_window is 16; accepted: no window",
    ),
    "a mistral3 of experts": (
        "mistral3",
        {"mistral3.expert_count": 8},
        "expert_count is 8.*mixtures of experts",
    ),
    "queries that grow by a word": (
        "mistral3",
        {"mistral3.attention.temperature_scale": "much"},
        "temperature_scale is .much.; accepted: a number",
    ),
    "weights of experts that are scaled": (
        "qwen3moe",
        {"qwen3moe.expert_weights_scale": 2.0},
        "nothing here reads.*expert_weights_scale",
    ),
}
SMALL_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8}


@pytest.mark.parametrize("what", OTHERS)
def test_what_an_architecture_cannot_have_is_refused_by_name(make: Make, what: str) -> None:
    architecture, metadata, said = OTHERS[what]
    changes = SMALL_EXPERTS if architecture == "qwen3moe" else {}
    _, file = make(architecture, metadata=metadata, head_dim=16, **changes)
    with pytest.raises(UnsupportedModel, match=said) as raised:
        open_checkpoint(file).load_model()
    assert "\n" not in str(raised.value)


def test_experts_of_which_a_part_is_missing_are_named(make: Make) -> None:
    _, file = make(
        "qwen3moe",
        head_dim=16,
        edit=lambda tensors: tensors.pop("blk.1.ffn_up_exps.weight"),
        **SMALL_EXPERTS,
    )
    said = r"misshapen tensors: blk.1.ffn_gate_exps.weight \[4, 8, 64\] instead of \[4, 16, 64\]"
    with pytest.raises(UnsupportedModel, match=said):
        open_checkpoint(file).load_model()


def test_a_pattern_of_windows_that_is_missing_is_asked_for(make: Make) -> None:
    _, file = make("qwen2", metadata={"qwen2.attention.sliding_window": 16})
    with pytest.raises(UnsupportedModel, match=r"sliding_window_pattern is missing.*of the 2"):
        open_checkpoint(file)


VALUE = np.ones((64, 64), np.float32)
TENSORS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "norms of queries": (
        lambda t: t.update(
            {f"blk.{i}.attn_{p}_norm.weight": VALUE[0] for i in (0, 1) for p in "qk"}
        ),
        "nothing here reads.*: blk.0.attn_q_norm.weight, blk.0.attn_k_norm",
    ),
    "a layer too many": (
        lambda t: t.update({"blk.2.attn_q.weight": VALUE}),
        "block_count 2 and tensors of 3 layers",
    ),
    "scales": (lambda t: t.update({"blk.0.attn_q.scale": VALUE[0]}), "blk.0.attn_q.scale"),
    "a bias of the head": (lambda t: t.update({"output.bias": VALUE[0]}), "output.bias"),
    "several, of which five are named": (
        lambda t: t.update({f"extra.{i}": VALUE[0] for i in range(9)}),
        "extra.0, extra.1, extra.2, extra.3, extra.4 and 4 more",
    ),
    "one missing": (
        lambda t: t.pop("blk.1.ffn_up.weight"),
        "no tensors for model.layers.1.mlp.up_proj.weight",
    ),
    "no embeddings": (lambda t: t.pop("token_embd.weight"), "no tensor token_embd.weight"),
    "one misshapen": (
        lambda t: t.update({"blk.0.attn_k.weight": VALUE}),
        r"misshapen tensors: blk.0.attn_k.weight \[64, 64\] instead of \[32, 64\]",
    ),
    "rotary factors of another length": (
        lambda t: t.update({"rope_freqs.weight": VALUE[0]}),
        r"rope_freqs.weight of shape \[64\]; accepted: \[8\]",
    ),
    "rotary factors of zero": (
        lambda t: t.update({"rope_freqs.weight": np.zeros(8, np.float32)}),
        "numbers above 0",
    ),
}


@pytest.mark.parametrize("what", TENSORS)
def test_tensors_without_a_place_or_missing_are_named(make: Make, what: str) -> None:
    edit, said = TENSORS[what]
    _, file = make("llama", edit=edit)
    with pytest.raises(UnsupportedModel, match=said) as raised:
        open_checkpoint(file).load_model()
    assert "\n" not in str(raised.value)


def test_a_bias_that_the_architecture_lacks_is_refused(make: Make) -> None:
    name = "blk.0.attn_output.bias"
    _, file = make("qwen2", edit=lambda tensors: tensors.update({name: VALUE[0]}))
    with pytest.raises(UnsupportedModel, match=f"nothing here reads.*{name}"):
        open_checkpoint(file).load_model()


def test_what_is_without_effect_is_counted(make: Make) -> None:
    _, file = make(
        "llama",
        metadata={
            "general.name": "x",
            "general.file_type": 0,
            "quantize.imatrix.file": "x",
            "llama.rope.scaling.finetuned": True,
        },
    )
    found = open_checkpoint(file).without_effect
    assert {entry.name for entry in found} == {
        "general.name",
        "general.file_type",
        "quantize.imatrix.file",
        "llama.rope.scaling.finetuned",
    }
