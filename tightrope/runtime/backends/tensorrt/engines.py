"""The engines of a bundle on this board: which there are to be, and those that were built.

Of standard graphs, or of graphs with our own ops as plugins, where the board has their kernels;
what has no own op is a standard graph with either.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tightrope.bundle import Bundle, Manifest
from tightrope.checks import check_one_of, check_whole
from tightrope.configs import setting
from tightrope.errors import BackendError, UnsupportedModel
from tightrope.interface.names import GraphName, Role
from tightrope.interface.ranges import Ranges
from tightrope.jetson.facts import BoardFacts
from tightrope.plugins.kernels.homes import missing
from tightrope.plugins.parsers import Parser, parser_of
from tightrope.plugins.parsers.bundled import refused, standard_graphs
from tightrope.runtime.backends.int8_slots import refuse_int8
from tightrope.runtime.backends.tensorrt.cache import Described, EngineCache, EngineKey

NONE, ALL = "none", "all"
PLUGINS = (NONE, ALL)
"""With which of our own ops as plugins engines can be built."""
_REASONS = 3
_OF_DECODERS: tuple[Role, ...] = ("prefill", "decode")


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """What engines are asked for; another choice is another engine."""

    plugins: str = setting(NONE, "Own ops as plugins: all, or none: standard operators only.")
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

    def graph(self, role: Role, method: str = "") -> GraphName:
        """The graph whose engine does this; with plugins one decoder reads prompts and tokens."""
        one: Role = "decoder" if role in _OF_DECODERS else role
        own = GraphName("plugins", one, method if role != "decode" else "")
        return own if own in self.found else GraphName("standard", role, method)

    def ranges(self, graph: GraphName) -> dict[str, tuple[int, ...]]:
        """Shortest, most common and longest length of each axis, of one profile after another."""
        return self.found[graph].key.ranges


def open_engines(bundle: Bundle, state: Path, facts: BoardFacts, options: BuildOptions) -> Engines:
    """The engines in state folder `state`; raises BackendError for one that is missing or foreign.

    Its words say what the engine there was built for, and how the right one is made.
    """
    cache = EngineCache(state)
    keys = dict(keys_of(bundle, facts, options))
    prefill = GraphName("standard", "prefill")
    alone = prefill in keys and cache.find(keys[prefill]).alone
    decode = GraphName("standard", "decode")
    found = {
        graph: cache.find(key) for graph, key in keys.items() if not (alone and graph == decode)
    }
    return Engines(cache, found)


def keys_of(
    bundle: Bundle, facts: BoardFacts, options: BuildOptions
) -> Iterator[tuple[GraphName, EngineKey]]:
    """Every graph that there is to be an engine of, with what that depends on."""
    manifest = bundle.manifest
    for graph in graphs_of(manifest, options):
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
                ranges=_joined(profiles_of(manifest, graph)),
            ),
        )


def graphs_of(manifest: Manifest, options: BuildOptions) -> list[GraphName]:
    """The graphs that engines are built of, by name."""
    standard = standard_graphs(manifest)
    if options.plugins == NONE:
        return standard
    own = [GraphName.parse(name) for name in manifest.plugins]
    served = {(graph.role, graph.method) for graph in own}
    kept = [
        graph
        for graph in standard
        if graph.role not in _OF_DECODERS and (graph.role, graph.method) not in served
    ]
    return sorted([*own, *kept], key=str)


def profiles_of(manifest: Manifest, graph: GraphName) -> list[Ranges]:
    """The optimization profiles of a graph; a decoder for any length has one for single tokens."""
    profiles = [manifest.ranges(graph)]
    if graph == GraphName("plugins", "decoder"):
        profiles.append(manifest.ranges(GraphName("standard", "decode")))
    return profiles


def _joined(profiles: Sequence[Ranges]) -> dict[str, tuple[int, ...]]:
    return {
        axis: tuple(length for profile in profiles for length in profile[axis])
        for axis in profiles[0]
    }


def options_built(bundle: Bundle, state: Path, facts: BoardFacts) -> BuildOptions:
    """What the engines that are there were asked for; a build leaves those of one kind."""
    cache, options = EngineCache(state), BuildOptions(plugins=ALL)
    there = (cache.has(key) for _, key in keys_of(bundle, facts, options))
    return options if bundle.manifest.plugins and all(there) else BuildOptions()


def with_plugins(
    bundle: Bundle, facts: BoardFacts, asked: str, homes: Sequence[Path]
) -> tuple[str, str]:
    """What to build for `asked` auto, none or all, and why, in words.

    homes: where kernels are. For all raises, where plugins cannot be, UnsupportedModel that names
    the limits if it is the model that kernels do not take, else BackendError. Slots in int8 are
    refused so whatever was asked.
    """
    if asked == NONE:
        refuse_int8(bundle.manifest, "plugins are not wanted", "build without --plugins none, or ")
        return NONE, "standard operators alone, as asked for"
    reason = _no_plugins(bundle.manifest, facts, homes)
    if not reason:
        return ALL, "our own ops as plugins"
    refuse_int8(bundle.manifest, reason, "make its kernels with tightrope kernels build, or ")
    if asked == ALL:
        kind = UnsupportedModel if bundle.manifest.no_plugins else BackendError
        raise kind(
            f"--plugins all cannot be: {reason}; --plugins none builds of standard operators alone"
        )
    return NONE, f"standard operators alone: {reason}"


def _no_plugins(manifest: Manifest, facts: BoardFacts, homes: Sequence[Path]) -> str:
    """Why engines cannot have our own ops as plugins; empty if they can."""
    if manifest.no_plugins:
        return f"the kernels do not take this model ({'; '.join(manifest.no_plugins)})"
    if not manifest.plugins:
        return "this bundle has no graphs for plugins; export the checkpoint again"
    sm = int(facts.compute_capability.replace(".", ""))
    names = [name for graph in manifest.plugins.values() for name in graph.kernels]
    if not (lacking := missing(homes, names, sm)):
        return ""
    more = f" and {len(lacking) - _REASONS} more" if len(lacking) > _REASONS else ""
    return f"no kernel {', '.join(lacking[:_REASONS])}{more} for sm_{sm} is here"


def refuse_unparsed(bundle: Bundle, tensorrt: str, options: BuildOptions) -> None:
    """Raises BackendError naming graph and node where this TensorRT's parser would refuse one."""
    parser = parser_of(tensorrt)
    for graph in graphs_of(bundle.manifest, options):
        if reasons := _refused(bundle.manifest, graph, parser):
            more = f"; and {len(reasons) - _REASONS} more" if len(reasons) > _REASONS else ""
            raise BackendError(f"{graph} cannot be built: {'; '.join(reasons[:_REASONS])}{more}")


def _refused(manifest: Manifest, graph: GraphName, parser: Parser) -> list[str]:
    if graph.variant == "standard":
        return refused(manifest, graph, parser)
    return parser.refuse(manifest.plugins[str(graph)].operators)
