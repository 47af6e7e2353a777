"""The engines of a bundle on this board: which there are to be, and those that were built."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tightrope.bundle import Bundle
from tightrope.checks import check_one_of, check_whole
from tightrope.configs import setting
from tightrope.errors import BackendError
from tightrope.interface.names import GraphName
from tightrope.jetson.facts import BoardFacts
from tightrope.plugins.parsers import parser_of
from tightrope.plugins.parsers.bundled import refused, standard_graphs
from tightrope.runtime.backends.tensorrt.cache import Described, EngineCache, EngineKey

PLUGINS = ("none",)
"""With which of our own ops engines can be built."""
_REASONS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """What engines are asked for; another choice is another engine."""

    plugins: str = setting("none", "Own ops as plugins: none, standard operators only.")
    search: int = setting(3, "How long TensorRT searches for fast kernels, 0 to 5.")

    def __post_init__(self) -> None:
        check_one_of("plugins", self.plugins, PLUGINS)
        check_whole("search", self.search, least=0, most=5)


@dataclass(frozen=True, slots=True)
class Engines:
    """Engines that were built for this bundle on this board, none of them read yet."""

    cache: EngineCache
    found: dict[GraphName, Described]

    @property
    def alone(self) -> bool:
        """Whether prefill reads single tokens as well: there is no decode."""
        return any(described.alone for described in self.found.values())

    def plan(self, graph: GraphName) -> memoryview:
        """The verified bytes of a graph's plan; raises BackendError for any others."""
        return memoryview(self.cache.read(self.found[graph]))

    def ranges(self, graph: GraphName) -> dict[str, tuple[int, ...]]:
        """Shortest, most common and longest length of each axis that it was built for."""
        return self.found[graph].key.ranges


def open_engines(bundle: Bundle, state: Path, facts: BoardFacts, options: BuildOptions) -> Engines:
    """The engines in state folder `state`; raises BackendError for one that is missing or foreign.

    Its words say what the engine there was built for, and how the right one is made.
    """
    cache = EngineCache(state)
    keys = dict(keys_of(bundle, facts, options))
    prefill = GraphName("standard", "prefill")
    alone = cache.find(keys[prefill]).alone
    decode = GraphName("standard", "decode")
    found = {
        graph: cache.find(key) for graph, key in keys.items() if not (alone and graph == decode)
    }
    return Engines(cache, found)


def keys_of(
    bundle: Bundle, facts: BoardFacts, options: BuildOptions
) -> Iterator[tuple[GraphName, EngineKey]]:
    """Every standard graph of the bundle with what its engine depends on."""
    manifest = bundle.manifest
    for graph in standard_graphs(manifest):
        yield (
            graph,
            EngineKey(
                bundle=bundle.digest,
                graph=str(graph),
                opset=manifest.opset_version,
                compute_capability=facts.compute_capability,
                board=facts.name,
                tensorrt=facts.tensorrt,
                options={"plugins": options.plugins, "search": str(options.search)},
                ranges={axis: tuple(lengths) for axis, lengths in manifest.ranges(graph).items()},
            ),
        )


def refuse_unparsed(bundle: Bundle, tensorrt: str) -> None:
    """Raises BackendError naming graph and node where this TensorRT's parser would refuse one."""
    parser = parser_of(tensorrt)
    for graph in standard_graphs(bundle.manifest):
        if reasons := refused(bundle.manifest, graph, parser):
            more = f"; and {len(reasons) - _REASONS} more" if len(reasons) > _REASONS else ""
            raise BackendError(f"{graph} cannot be built: {'; '.join(reasons[:_REASONS])}{more}")
