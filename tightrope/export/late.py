"""A model whose matrices are read when a module computes with them, and given back behind it.

Modules are Hugging Face's, in float32. What they hold of a matrix is a placeholder that takes no
memory and is NaN, so that one that was read past its module shows in whatever comes of it. Norms,
biases and tables of positions, which code also reads from outside, are there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from tightrope.export.coded import Published


@dataclass(frozen=True, slots=True)
class Place:
    """Where a model holds a parameter; one that is tied is held in several."""

    module: Any
    leaf: str
    name: str

    @property
    def value(self) -> torch.Tensor:
        """What is held there: the parameter, or its placeholder."""
        found: torch.Tensor = self.module._parameters[self.leaf]
        return found


Read = Callable[[Place], "torch.Tensor | None"]
"""A parameter in float32 while its module computes; None: as the checkpoint has it."""


class Parameters(Mapping[str, torch.Tensor]):
    """Tensors by name, each read anew whenever it is asked for."""

    def __init__(self, sources: Mapping[str, Callable[[], torch.Tensor]]) -> None:
        self._sources = dict(sources)

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._sources[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)


@dataclass(frozen=True, slots=True)
class LateModel:
    """A model, and where its weights come from."""

    model: Any
    parameters: Parameters
    """Parameters and buffers by every name, in the type that they are stored in."""
    published: Mapping[str, Published] = field(default_factory=dict)
    """Matrices as a quantised checkpoint has them, by every name."""

    def places(self) -> list[Place]:
        """Of every parameter."""
        return list(_places(self.model))

    @contextlib.contextmanager
    def computing(self, read: Read = lambda _: None) -> Iterator[None]:
        """Inside, a module that is called computes with what `read` gives for its parameters."""

        def value_of(place: Place) -> torch.Tensor | None:
            value = read(place)
            if value is None and rests(place.value):
                return self.parameters[place.name].float()
            return value

        by_module: dict[Any, list[Place]] = {}
        for place in self.places():
            by_module.setdefault(place.module, []).append(place)
        with contextlib.ExitStack() as stack:
            for module, places in by_module.items():
                stack.enter_context(_bound(module, places, value_of))
            yield

    def settle(self, read: Read) -> None:
        """Give the parameters that are there, and stay, what `read` gives for them."""
        for place in self.places():
            if not rests(place.value) and (value := read(place)) is not None:
                place.value.copy_(value)

    def filled(self) -> Any:
        """The model with all of its weights at once."""
        shared: dict[int, torch.nn.Parameter] = {}
        for place in self.places():
            key = id(place.value)
            if rests(place.value) and key not in shared:
                shared[key] = _parameter(self.parameters[place.name].float())
            place.module._parameters[place.leaf] = shared.get(key, place.value)
        return self.model


def parameters_of(model: Any) -> dict[str, torch.Tensor]:
    """Parameters and buffers of a model by Hugging Face's names."""
    named = dict(model.named_parameters(remove_duplicate=False))
    return named | dict(model.named_buffers(remove_duplicate=False))


def resting(shape: Sequence[int], value: float = float("nan")) -> torch.Tensor:
    """float32 of a shape, without memory."""
    return torch.full((), float(value), dtype=torch.float32).expand(tuple(shape))


def rests(value: torch.Tensor) -> bool:
    """Whether a tensor is a placeholder."""
    lengths = zip(value.shape, value.stride(), strict=True)
    return value.numel() > 1 and not any(stride for length, stride in lengths if length > 1)


def rest(model: Any, parameters: Mapping[str, torch.Tensor]) -> None:
    """Put placeholders where matrices are, and values where placeholders may not stay."""
    table = model.get_input_embeddings()
    shared: dict[int, torch.nn.Parameter] = {}
    for place in list(_places(model)):
        key, value = id(place.value), place.value
        if key not in shared:
            late = _may_rest(place, table)
            shared[key] = _parameter(
                resting(value.shape) if late else parameters[place.name].float().clone()
            )
        place.module._parameters[place.leaf] = shared[key]


def _may_rest(place: Place, table: Any) -> bool:
    """Whether nothing but the module that holds a parameter reads it, and only when called."""
    module = place.module
    if place.value.dim() < 2 or place.value.numel() < 2:
        return False
    if isinstance(module, torch.nn.Embedding):  # tables of positions are interpolated
        return module is table
    if isinstance(module, torch.nn.Conv1d):  # layers of a short convolution read its kernel
        return False
    return not any(True for child in module.children() for _ in child.parameters())


def _places(model: Any) -> Iterator[Place]:
    for path, module in model.named_modules():
        for leaf, value in module._parameters.items():
            if value is not None:
                yield Place(module, leaf, f"{path}.{leaf}" if path else leaf)


def _parameter(value: torch.Tensor) -> torch.nn.Parameter:
    return torch.nn.Parameter(value, requires_grad=False)


@contextlib.contextmanager
def _bound(module: Any, places: Sequence[Place], read: Read) -> Iterator[None]:
    own = {place.leaf: place.value for place in places}

    def enter(*_: Any) -> None:
        for place in places:
            value = read(place)
            if value is not None:
                module._parameters[place.leaf] = _parameter(value)

    def leave(*_: Any) -> None:
        module._parameters.update(own)

    handles = [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        yield
    finally:
        leave()
        for handle in handles:
            handle.remove()
