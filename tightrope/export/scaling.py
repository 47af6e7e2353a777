"""Inputs that are large are worth more of a matrix's precision: activation-aware scaling.

A column of a matrix is multiplied by a factor and what feeds it divided by it, a norm's weight or a
row of the matrix before: the model stays the same, and what rounding takes from columns that
matter grows less. Factors are powers of the mean size of the inputs; of a few exponents, each group
takes the one with the least error of its outputs. AWQ, Lin et al. 2023, arXiv:2306.00978.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tightrope.errors import UnsupportedModel
from tightrope.export.late import LateModel, Parameters
from tightrope.export.quantising import Asked, error, logits, matrices
from tightrope.export.rounding import Rounding

_EXPONENTS = (0.2, 0.4, 0.6, 0.8, 1.0)
_LEAST_SIZE, _MOST = 1e-4, 128.0
"""Of an input, and of a factor: float16 has to hold what is divided by it."""
_ROWS = 128
"""Inputs of each group that are looked at."""
_SAME = 1e-3
"""What float32 may move the logits of a model that was scaled and not rounded."""


@dataclass(frozen=True, slots=True)
class Group:
    """Matrices that read one input, and what gives it; modules by their paths."""

    feeder: str
    """A norm, or a matrix whose outputs this group alone reads."""
    fed: tuple[str, ...]
    head_dim: int
    repeats: int
    """Heads of the input that are one head of the feeder's output."""

    def spread(self, factors: torch.Tensor) -> torch.Tensor:
        """Factors of the feeder's outputs as those of the group's inputs."""
        heads = factors.reshape(-1, 1, self.head_dim)
        return heads.expand(-1, self.repeats, -1).reshape(-1)

    def pooled(self, sizes: torch.Tensor) -> torch.Tensor:
        """Sizes of the group's inputs as those of the feeder's outputs."""
        return sizes.reshape(-1, self.repeats, self.head_dim).mean(1).reshape(-1)


class Scaled(Parameters):
    """Parameters with columns multiplied and rows divided, by name."""

    def __init__(self, own: Parameters) -> None:
        super().__init__({name: functools.partial(self._of, name) for name in own})
        self._own = own
        self.columns: dict[str, torch.Tensor] = {}
        self.rows: dict[str, torch.Tensor] = {}
        self.added: dict[str, float] = {}
        """What a norm adds to its weight before it multiplies."""

    def _of(self, name: str) -> torch.Tensor:
        value = self._own[name]
        if name in self.columns:
            value = value.float() * self.columns[name]
        if name in self.rows:
            factors, added = self.rows[name], self.added.get(name, 0.0)
            by_row = factors if value.dim() == 1 else factors[:, None]
            value = (value.float() + added) / by_row - added
        return value


def scaled(late: LateModel, rounding: Rounding, asked: Asked) -> tuple[LateModel, int]:
    """The same model with its matrices scaled for `rounding`, and how many of them were.

    Norms and biases of `late` itself are those of the scaled model afterwards. Raises
    UnsupportedModel where it would be another model.
    """
    groups, parameters = list(_groups(late.model)), Scaled(late.parameters)
    before, inputs = logits(late, asked), _inputs(late, groups, asked)
    in_codes = {place.name for place in matrices(late, rounding)}
    for group in groups:
        if {f"{path}.weight" for path in group.fed} <= in_codes:
            factors = _best(late, rounding, group, inputs[group.fed[0]])
            if factors is not None:
                _apply(late, parameters, group, factors)
    same = LateModel(late.model, parameters, late.published)
    same.settle(lambda place: parameters[place.name] if place.name in parameters.rows else None)
    moved = error(before, logits(same, asked))
    if not moved < _SAME:
        raise UnsupportedModel(
            f"scaling by activations would change this model: its logits by {moved:.1e} of their "
            "size; export without a calibration set"
        )
    return same, len(parameters.columns)


def _groups(model: Any) -> Iterator[Group]:
    """By the names that Hugging Face's decoders share; what is called otherwise is left alone."""
    paths = {module: path for path, module in model.named_modules()}
    for layer in model.get_decoder().layers:
        attention: Any = getattr(layer, "self_attn", None)  # LFM2 has it in some of its layers
        mlp = getattr(layer, "mlp", None)
        convolution, forward = (getattr(layer, name, None) for name in ("conv", "feed_forward"))
        # Where there is one before the MLP, the norm behind attention is of its output.
        norm = "pre_feedforward_layernorm"
        norm = norm if hasattr(layer, norm) else "post_attention_layernorm"
        for feeding, feeder, owner, names in (
            (layer, "input_layernorm", attention, ("q_proj", "k_proj", "v_proj")),
            (layer, "input_layernorm", attention, ("qkv_proj",)),
            (layer, norm, mlp, ("gate_proj", "up_proj")),
            (layer, norm, mlp, ("gate_up_proj",)),
            (attention, "v_proj", attention, ("o_proj",)),
            (mlp, "up_proj", mlp, ("down_proj",)),
            (layer, "operator_norm", attention, ("q_proj", "k_proj", "v_proj")),
            (layer, "operator_norm", convolution, ("in_proj",)),
            (layer, "ffn_norm", forward, ("w1", "w3")),
            (attention, "v_proj", attention, ("out_proj",)),
            (forward, "w3", forward, ("w2",)),
        ):
            wanted = [(feeding, feeder), *((owner, name) for name in names)]
            modules: list[Any] = [getattr(part, name, None) for part, name in wanted]
            if None in modules:
                continue
            source, *fed = modules
            width, repeats = source.weight.shape[0], 1
            if source is getattr(attention, "v_proj", None):
                repeats = fed[0].in_features // width
            head = attention.head_dim if repeats > 1 else width
            yield Group(paths[source], tuple(paths[module] for module in fed), head, repeats)


def _inputs(late: LateModel, groups: Sequence[Group], asked: Asked) -> dict[str, torch.Tensor]:
    """Inputs [rows,K] of the first matrix of each group, taken evenly from all prompts."""
    seen: dict[str, list[torch.Tensor]] = {}
    of_each = -(-_ROWS // len(asked))

    def note(path: str, _: Any, given: tuple[torch.Tensor, ...]) -> None:
        rows = given[0].reshape(-1, given[0].shape[-1])
        picked = np.linspace(0, len(rows) - 1, min(of_each, len(rows))).round().astype(np.int64)
        seen.setdefault(path, []).append(rows[torch.from_numpy(picked)].clone())

    handles = [
        late.model.get_submodule(group.fed[0]).register_forward_pre_hook(
            functools.partial(note, group.fed[0])
        )
        for group in groups
    ]
    try:
        logits(late, asked)
    finally:
        for handle in handles:
            handle.remove()
    return {path: torch.cat(parts) for path, parts in seen.items()}


def _best(
    late: LateModel, rounding: Rounding, group: Group, inputs: torch.Tensor
) -> torch.Tensor | None:
    """Factors of the feeder's outputs; None where none are better than no scaling."""
    weights = {f"{path}.weight": late.parameters[f"{path}.weight"].float() for path in group.fed}
    wanted = {name: inputs @ weight.T for name, weight in weights.items()}

    def loss(wide: torch.Tensor) -> float:
        found = 0.0
        for name, weight in weights.items():
            read = torch.from_numpy(rounding.coded(name, weight * wide).weight())
            found += float((((inputs / wide) @ read.T - wanted[name]) ** 2).sum())
        return found

    sizes = group.pooled(inputs.abs().mean(0)).clamp(min=_LEAST_SIZE)
    least, best = loss(torch.ones(inputs.shape[1])), None
    for exponent in _EXPONENTS:
        factors = sizes**exponent
        factors = (factors / (factors.max() * factors.min()).sqrt()).clamp(1 / _MOST, _MOST)
        if (now := loss(group.spread(factors))) < least:
            least, best = now, factors
    return best


def _apply(late: LateModel, parameters: Scaled, group: Group, factors: torch.Tensor) -> None:
    for path in group.fed:
        parameters.columns[f"{path}.weight"] = group.spread(factors)
    feeder = late.model.get_submodule(group.feeder)
    parameters.rows[f"{group.feeder}.weight"] = factors
    if not isinstance(feeder, torch.nn.Linear):
        parameters.added[f"{group.feeder}.weight"] = _added(feeder)
    if getattr(feeder, "bias", None) is not None:
        parameters.rows[f"{group.feeder}.bias"] = factors


def _added(norm: Any) -> float:
    """What a norm adds to its weight: 1 in the gemmas, which show something with a weight of 0."""
    own = norm.weight.detach().clone()
    norm.weight.zero_()
    shown = norm(torch.ones(1, len(own)))
    norm.weight.copy_(own)
    return 1.0 if bool(shown.any()) else 0.0
