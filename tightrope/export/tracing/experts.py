"""The seam of mixtures of experts: what Hugging Face's layers call instead of their own code.

Theirs walks through the experts that were chosen, one by one, or hands every pair of a token and an
expert a copy of the weights; neither is a graph for prompts and single tokens. This one computes
every expert that was chosen at all for all tokens of the call, and weighs by what the router gave:
nothing where it did not choose. Of one token that are its own experts alone, of a prompt all.
"""

from __future__ import annotations

from typing import Any

import torch

EXPERTS = "tightrope"


def mix_experts(
    module: Any, hidden: torch.Tensor, chosen: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """[T,E] of tokens `hidden` [T,E]; chosen, weight [T,K]: their experts and how much each counts.

    The module holds gate_up_proj [X,2I,E] and down_proj [X,E,I].
    """
    tokens, experts = hidden.shape[0], module.num_experts
    share = weight.new_zeros(tokens, experts).scatter(1, chosen, weight)
    # At most K experts a token: the rest of the order has no share in any.
    most: Any = torch.sym_min(tokens * chosen.shape[1], experts)  # type: ignore[no-untyped-call]
    used = share.sum(0).sort(descending=True).indices[:most]
    columns = hidden.T  # as columns, so that the weights are read the way that they are stored
    gate, up = (module.gate_up_proj[used] @ columns).chunk(2, dim=1)  # [U,I,T] each
    inner = module.act_fn(gate) * up * share.T[used][:, None]
    mixed: torch.Tensor = (module.down_proj[used] @ inner).sum(0).T
    return mixed
