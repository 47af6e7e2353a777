"""What a selector states of itself, what it is given, and how a score becomes one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from tightrope.arrays import Floats, Indices
from tightrope.export.selectors.steps import best, emit_best, emit_take
from tightrope.interface.tensors import KEEP_RAMP, VISUAL_EMBEDS

if TYPE_CHECKING:
    import onnx_ir as ir

    from tightrope.plugins.builder import OpBuilder

_ABSENT: Any = None


class Context(Protocol):
    """What a body cannot know by itself."""

    @property
    def activation(self) -> int:
        """The graph's own float as ONNX numbers it."""

    def project(self, op: OpBuilder, states: ir.Value) -> ir.Value:
        """Emits the projector: tower states [I,T,Dv] -> embeddings [I,T,E]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One image as a reference reads it, all float32; what its selector does not need is None."""

    visual_embeds: Floats
    """[V,E]"""
    cls_attention: Floats = _ABSENT
    """[V]"""
    tower_keys: Floats = _ABSENT
    """[V,dh]"""
    tower_states: Floats = _ABSENT
    """[1+V,Dv], CLS first"""
    text_embeds: Floats = _ABSENT
    """[T,E]"""
    project: Callable[[Floats], Floats] = _ABSENT
    """The projector: tower states [T,Dv] -> embeddings [T,E]."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What stays of one image."""

    index: Indices
    """[K], ascending."""
    embeds: Floats
    """[K,E]"""


Given = Mapping[str, "ir.Value"]
"""The graph's inputs, by the names of `tightrope.interface.tensors`."""
Body = Callable[["OpBuilder", Given, Context], "tuple[ir.Value, ir.Value]"]
Emit = Callable[["OpBuilder", Given, Context], "ir.Value"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """A way to choose the visual tokens that the language model sees."""

    name: str
    paper: str
    default_keep: str
    """The setting of its paper, as a share of the tokens of one image."""
    signals: tuple[str, ...] = ()
    """What the tower must hand over besides the visual tokens:
    cls_attention  float32     [I,V]       attention of CLS to each token, mean over heads
    tower_keys     activation  [I,V,dh]    keys of the same block, mean over heads
    tower_states   activation  [I,1+V,Dv]  what the projector reads, CLS first
    """
    text_guided: bool = False
    """Whether it reads the question's embeddings."""
    merges: bool = False
    """Whether kept tokens are mixed from several."""
    body: Body
    """Emits the graph for all images of a call: index int64 [I,K] ascending, embeds [I,K,E]."""
    reference: Callable[[Image, int], Choice]
    """The same for one image in numpy, given how many to keep: the oracle of `body`."""


def from_score(
    *,
    name: str,
    paper: str,
    default_keep: str,
    signals: tuple[str, ...] = (),
    text_guided: bool = False,
    score: Callable[[Image, int], Floats],
    emit: Emit,
) -> Selector:
    """The selector that keeps the K tokens of highest score.

    score: of each token of an image, float32 [V], given K.
    emit: the same as a graph for all images of a call, float32 [I,V].
    """

    def body(op: OpBuilder, given: Given, context: Context) -> tuple[ir.Value, ir.Value]:
        index = emit_best(op, emit(op, given, context), given[KEEP_RAMP])
        return index, emit_take(op, given[VISUAL_EMBEDS], index)

    def reference(image: Image, keep: int) -> Choice:
        index = best(score(image, keep), keep)
        return Choice(index, image.visual_embeds[index])

    return Selector(
        name=name,
        paper=paper,
        default_keep=default_keep,
        signals=signals,
        text_guided=text_guided,
        body=body,
        reference=reference,
    )
