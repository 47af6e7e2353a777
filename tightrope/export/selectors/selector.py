"""What a selector states of itself, and what its graph is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from tightrope.plugins.baselines import Baseline

if TYPE_CHECKING:
    import onnx_ir as ir

    from tightrope.plugins.builder import OpBuilder


class Context(Protocol):
    """What a body cannot know by itself."""

    @property
    def dtype(self) -> int:
        """Element type T of the graph as ONNX numbers it: 1 float32, 10 float16."""

    def project(self, op: OpBuilder, states: ir.Value) -> ir.Value:
        """Emits the projector: tower states T [I,T,Dv] -> embeddings T [I,T,E]."""


Body = Callable[["OpBuilder", "dict[str, ir.Value]", Context], "tuple[ir.Value, ir.Value]"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """A way to choose the visual tokens that the language model sees.

    A method with a graph has `body` and `reference`; a baseline has `indices`, and the host
    gathers the tokens.
    """

    name: str
    paper: str
    acts: str = "before the language model"
    signals: tuple[str, ...] = ()
    """What the tower must hand over besides the visual tokens:
    cls_attention  float32 [I,V]  attention of CLS to each token, mean over heads
    tower_keys     T [I,V,dh]     keys of the same block, mean over heads
    tower_states   T [I,1+V,Dv]   what the projector reads, CLS first
    """
    text_guided: bool = False
    """Whether it reads the question's embeddings."""
    merges: bool = False
    """Whether kept tokens are mixed from several."""
    default_keep: str
    """The setting of its paper, as a share of the tokens of one image."""
    body: Body | None = None
    """Emits the graph: the inputs by name -> index int64 [I,K] ascending, embeds T [I,K,E]."""
    reference: Callable[..., Any] | None = None
    """The same for one image in numpy, float32: the oracle of `body`."""
    indices: Baseline | None = None
    """Kept indices from the counts alone."""
