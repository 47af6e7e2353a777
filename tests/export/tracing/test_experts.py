"""The seam of expert layers against the walk through the experts that transformers does."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="exporting needs torch")
transformers = pytest.importorskip("transformers", reason="the oracle is Hugging Face's code")

from tightrope.export.tracing.experts import mix_experts  # noqa: E402

WIDTH, INNER, EXPERTS, CHOSEN = 13, 6, 7, 3


@pytest.fixture
def layer() -> Any:
    """Router and experts with random weights."""
    torch.manual_seed(3)
    config = transformers.Qwen3MoeConfig(
        hidden_size=WIDTH,
        moe_intermediate_size=INNER,
        num_experts=EXPERTS,
        num_experts_per_tok=CHOSEN,
        norm_topk_prob=True,
    )
    config._experts_implementation = "eager"
    block = transformers.models.qwen3_moe.modeling_qwen3_moe.Qwen3MoeSparseMoeBlock(config)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter)
    return block.requires_grad_(False)


@pytest.mark.parametrize("tokens", [1, 2, 3, 40])
def test_experts_are_mixed_as_transformers_walks_through_them(layer: Any, tokens: int) -> None:
    hidden = torch.randn(tokens, WIDTH)
    _, weight, chosen = layer.gate(hidden)
    wanted = layer.experts(hidden, chosen, weight)
    torch.testing.assert_close(mix_experts(layer.experts, hidden, chosen, weight), wanted)


def test_a_single_token_reads_its_own_experts_alone(layer: Any) -> None:
    hidden = torch.randn(1, WIDTH)
    _, weight, chosen = layer.gate(hidden)
    wanted = mix_experts(layer.experts, hidden, chosen, weight)
    for other in set(range(EXPERTS)) - set(chosen[0].tolist()):
        layer.experts.gate_up_proj[other] = torch.nan
        layer.experts.down_proj[other] = torch.nan
    torch.testing.assert_close(mix_experts(layer.experts, hidden, chosen, weight), wanted)


def test_an_expert_that_the_router_gives_nothing_adds_nothing(layer: Any) -> None:
    hidden, chosen = torch.randn(2, WIDTH), torch.tensor([[0, 1], [2, 3]])
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    found = mix_experts(layer.experts, hidden, chosen, weight)
    alone = mix_experts(layer.experts, hidden, torch.tensor([[0], [3]]), torch.ones(2, 1))
    torch.testing.assert_close(found, alone)
