"""Hugging Face's loader on tensors without content: where does which tensor of a checkpoint go?

The loader renames, joins and ties, and tells what is missing; which of a model's parameters comes
from which tensor it does not tell. So each tensor is a placeholder that holds its own number.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch

from tightrope.export.coded import Published
from tightrope.export.late import LateModel, Parameters, parameters_of, rest, resting, rests
from tightrope.export.weight_files import Stored

Publish = Callable[[str], "Published | None"]
Source = Callable[[], torch.Tensor]


def load_late(
    auto_class: Any, config: Any, stored: Mapping[str, Stored], published: Publish
) -> tuple[LateModel, dict[str, Any]]:
    """The model of `config` with the tensors `stored`, and transformers' report of what it did.

    published: a tensor as it is stored in codes. Where the report tells of missing or misshapen
    tensors, the model has no weights.
    """
    with torch.device("meta"):
        loader = type(auto_class.from_config(copy.deepcopy(config)))
    names = list(stored)
    state = {name: resting(stored[name].shape, number) for number, name in enumerate(names)}
    model, report = _load(loader, config, state)
    if report.get("missing_keys") or report.get("mismatched_keys"):
        return LateModel(model, Parameters({})), report
    kept = model.state_dict().keys()
    tensors = dict[str, str]()
    for name, value in parameters_of(model).items():
        if name in kept and rests(value):
            tensor = names[int(value.flatten()[0])]
            if stored[tensor].shape == tuple(value.shape):
                tensors[name] = tensor
    if kept - tensors.keys():
        # Single numbers, and what the loader makes of tensors: joined experts, other shapes.
        others = set(names) - set(tensors.values())
        state |= {name: stored[name].read() for name in others}
        model, report = _load(loader, config, state)
    parameters = _bind(model, {name: stored[tensor] for name, tensor in tensors.items()})
    entries = {name: published(tensor) for name, tensor in tensors.items()}
    found = {name: entry for name, entry in entries.items() if entry is not None}
    return LateModel(model, parameters, found), report


def _load(loader: Any, config: Any, state: dict[str, torch.Tensor]) -> tuple[Any, dict[str, Any]]:
    # Mismatched tensors are refused by name: the error without this option names none.
    model, report = loader.from_pretrained(
        None,
        config=copy.deepcopy(config),
        state_dict=dict(state),
        dtype=torch.float32,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
    )
    return model, report


def _bind(model: Any, stored: Mapping[str, Stored]) -> Parameters:
    """Where each of the model's values comes from; the model's placeholders hold none any more."""
    sources: dict[str, Source] = {}
    for name, value in parameters_of(model).items():
        if name in stored:
            sources[name] = stored[name].read
        else:
            sources[name] = value.detach
    parameters = Parameters(sources)
    _tie(model, parameters)
    rest(model, parameters)
    for name, buffer in model.named_buffers():
        if name in stored:
            owner, _, leaf = name.rpartition(".")
            model.get_submodule(owner)._buffers[leaf] = parameters[name].to(buffer.dtype)
    _round_scale(model, parameters)
    return parameters


def _tie(model: Any, parameters: Mapping[str, torch.Tensor]) -> None:
    """A head that is stored beside the embeddings of a tied model, and is the same, is tied."""
    head, table = model.get_output_embeddings(), model.get_input_embeddings()
    if not model.config.tie_word_embeddings or head.weight is table.weight:
        return
    names = {id(value): name for name, value in model.named_parameters(remove_duplicate=False)}
    one, other = (parameters[names[id(module.weight)]] for module in (head, table))
    if torch.equal(one, other):
        head.weight = table.weight


def _round_scale(model: Any, parameters: Mapping[str, torch.Tensor]) -> None:
    """What a table multiplies its rows by is rounded to the type that they are stored in."""
    table = model.get_input_embeddings()
    scale = getattr(table, "embed_scale", None)
    if isinstance(scale, torch.Tensor):
        name = next(n for n, value in model.named_parameters() if value is table.weight)
        scale.copy_(scale.to(parameters[name].dtype))
