"""Which graph files a bundle has: one row a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from tightrope.export.recipe import Recipe
from tightrope.interface.names import GraphName, Role, Variant
from tightrope.plugins.slot_attention.body import Form

GraphForm = Form | Literal["both", "own"]
"""How SlotAttention is lowered in a whole graph; both: lean for one token a call, else either; own:
it is not, and no other own op is."""


@dataclass(frozen=True, slots=True)
class GraphFile:
    """One file: its name, the trace that it is derived from, and the form of SlotAttention."""

    name: GraphName
    trace: tuple[Role, str]
    form: GraphForm = "general"

    @property
    def single(self) -> bool:
        """Whether it serves one token a call."""
        return self.form == "step"


def graph_files(recipe: Recipe) -> Iterator[GraphFile]:
    """Every graph file of the bundle but for those with own ops.

    On ONNX Runtime one graph serves prompts and single tokens, so that the weights are held once.
    TensorRT ranks fewer than 3,840 values: its prefill ranks nothing.
    """
    for schedule in ("", *recipe.schedules):
        trace: tuple[Role, str] = ("decoder", schedule)
        form: GraphForm = "either" if schedule else "both"
        yield GraphFile(GraphName("host", "decoder", schedule), trace, form)
        if recipe.config.prefill_precision == "int8":
            yield GraphFile(GraphName("int8", "decoder", schedule), trace, form)
        yield GraphFile(GraphName("standard", "prefill", schedule), trace, "append")
    yield GraphFile(GraphName("standard", "decode"), ("decoder", ""), "step")
    variants: tuple[Variant, ...] = ("host", "standard")
    for variant in variants if recipe.vision is not None else ():
        yield GraphFile(GraphName(variant, "vision"), ("vision", ""))
        for method in recipe.selectors:
            yield GraphFile(GraphName(variant, "select", method), ("select", method))


def plugin_files(traces: Iterable[tuple[Role, str]]) -> Iterator[GraphFile]:
    """The files in which own ops stay, one for each of the traces that have such.

    A graph for any number of tokens: TensorRT makes an optimization profile for one of them.
    """
    for role, method in traces:
        yield GraphFile(GraphName("plugins", role, method), (role, method), "own")
