"""A bundle's parts, opened once and shared by all its requests."""

from __future__ import annotations

from tightrope.bundle import EMBEDDINGS, Bundle, Manifest
from tightrope.errors import BundleError
from tightrope.inputs.embeddings import Embeddings
from tightrope.inputs.positions import Rule, find_rule
from tightrope.interface.tensors import decoder_inputs, decoder_outputs
from tightrope.runtime.backends.backend import Backend
from tightrope.runtime.baselines import BASELINES, Baselines
from tightrope.runtime.engine import engine_of
from tightrope.runtime.language import Language
from tightrope.runtime.stopwatch import Clock
from tightrope.runtime.vision import Vision


class Loaded:
    """What a request needs of its bundle."""

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        clock: Clock,
        selectors: Baselines | None = None,
    ) -> None:
        """Raises BundleError for a part that is damaged or does not fit the manifest."""
        self.baselines = {**BASELINES, **(selectors or {})}
        self.bundle, self.backend, self.clock = bundle, backend, clock
        self.engine = engine_of(backend.device)
        self.manifest: Manifest = bundle.manifest
        _check_decoder(bundle, backend)
        self.language = Language(bundle)
        self.embeddings = Embeddings(
            bundle.file(EMBEDDINGS),
            self.manifest.embeddings,
            self.manifest.dims,
            self.language.embedding_scale,
        )
        self.rope: Rule = find_rule(self.manifest.positions)
        self.vision: Vision | None = None
        if (tower := self.manifest.tower) is not None:
            config = bundle.read_json("preprocessor.json")
            prepare = tower.prepare(config, bundle.read_arrays("positions.npz"))
            self.vision = Vision(backend, tower, prepare, self.baselines)


__all__ = ["Baselines", "Loaded"]


def _check_decoder(bundle: Bundle, backend: Backend) -> None:
    """Raises BundleError where the decoder's graph and the manifest's sizes disagree."""
    dims, found = bundle.manifest.dims, backend.decoder_shapes()
    wanted = {row.name: row.axes for row in (*decoder_inputs(dims), *decoder_outputs(dims))}
    for name in {**wanted, **found}:
        axes, shape = wanted.get(name, ()), found.get(name, [])
        # Only fixed lengths: names of free axes are the graph's own.
        if len(axes) != len(shape) or any(
            isinstance(axis, int) and axis != size for axis, size in zip(axes, shape, strict=True)
        ):
            raise BundleError(
                f"{bundle.path}: the decoder has {name} {list(shape)}, bundle.json says "
                f"{list(axes)}; export the checkpoint again"
            )
