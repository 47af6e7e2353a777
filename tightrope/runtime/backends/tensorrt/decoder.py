"""What a decoder's engine leaves on the device, and the step that is captured for its slots."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tightrope.arrays import Array
from tightrope.errors import BackendError
from tightrope.interface.calls import Call, small_feeds
from tightrope.interface.tensors import (
    KEY,
    LOGITS,
    NEXT_POSITION,
    NEXT_SCORE,
    TARGET,
    VALUE,
    numbered,
)
from tightrope.runtime.backends.tensorrt.arena import Arena
from tightrope.runtime.backends.tensorrt.driver import Device, Graph
from tightrope.runtime.backends.tensorrt.engine import Context, Engine, Shape
from tightrope.runtime.backends.tensorrt.reduction import Reduced, Reduction
from tightrope.runtime.backends.tensorrt.run import Blocks, Run
from tightrope.runtime.backends.tensorrt.storage import DeviceArray, DeviceUpdate, NewRows
from tightrope.runtime.likeliest import Logits


def handed_over(engine: Engine, call: Call) -> dict[str, Array]:
    """Inputs of a decoder that every call brings anew, as far as this engine reads them."""
    return {name: array for name, array in small_feeds(call).items() if name in engine.tensors}


def slots_of(arena: Arena, side: int, empty: Mapping[str, bool]) -> dict[str, tuple[Shape, int]]:
    """Shapes and addresses of slots, and of the scores and positions that a call writes.

    empty: by the name of a layer's keys or values, whether there is nothing in it to be read.
    """
    addresses = arena.bindings(side)
    return {
        name: ((*shape[:2], 0, *shape[3:]) if empty.get(name) else shape, addresses[name])
        for name, shape in arena.shapes.items()
    }


def stays(engine: Engine) -> list[str]:
    """Outputs that only the commit reads."""
    return [name for name in engine.tensors if name.split(".")[0] in (KEY, VALUE)]


def new_rows(run: Run, layers: int, itemsize: int) -> NewRows:
    """Where a call's new keys, values and targets lie, stacked or layer by layer."""
    addresses, shapes = run.addresses, run.shapes

    def places(name: str, size: int) -> list[int]:
        if name not in shapes:
            return [addresses[numbered(name, layer)] for layer in range(layers)]
        each = int(np.prod(shapes[name][1:])) * size
        return [addresses[name] + layer * each for layer in range(layers)]

    lengths = [
        shapes[numbered(TARGET, i) if TARGET not in shapes else TARGET] for i in range(layers)
    ]
    return NewRows(
        places(KEY, itemsize),
        places(VALUE, itemsize),
        places(TARGET, np.dtype(np.int32).itemsize),
        [shape[-1] for shape in lengths],
    )


def update_of(
    run: Run, outputs: Mapping[str, Array], arena: Arena, side: int, rows: NewRows
) -> DeviceUpdate:
    """What is to be committed of a call that read `side`; outputs: those that came to the host."""
    spare = arena.bindings(side)
    places = {**run.addresses, **spare}
    shapes = {**arena.shapes, **run.shapes}

    def there(name: str) -> Any:
        dtype = run.context.engine.tensors[name].dtype
        return DeviceArray(run.device, places[name], shapes[name], dtype)

    def stacked_or_not(name: str, found: Callable[[str], Any]) -> Any:
        if name in run.shapes:
            return found(name)
        return [found(numbered(name, layer)) for layer in range(len(arena.capacity))]

    return DeviceUpdate(
        stacked_or_not(KEY, there),
        stacked_or_not(VALUE, there),
        stacked_or_not(TARGET, outputs.__getitem__),
        there(NEXT_SCORE),
        there(NEXT_POSITION),
        rows=rows,
        side=1 - side,
    )


class Step:
    """A step of decode over one arena: two contexts, one for either side of scores and positions.

    A captured graph holds with its context, its shapes and every address, so each side has its own.
    It is captured at the second call: TensorRT asks for one run before.
    """

    def __init__(
        self,
        device: Device,
        contexts: tuple[Context, Context],
        arena: Arena,
        call: Call,
        reduction: Reduction | None,
    ) -> None:
        """reduction: of a large vocabulary, whose logits then stay on the device."""
        self._device, (first, _) = device, contexts
        self._engine = first.engine
        blocks = Blocks(device, "a step")
        given = {name: array.shape for name, array in handed_over(self._engine, call).items()}
        self._runs = [Run(device, context, blocks) for context in contexts]
        staying = [*stays(self._engine), *([] if reduction is None else [LOGITS])]
        for side, run in enumerate(self._runs):
            run.prepare(given, slots_of(arena, side, {}), staying)
        self._reduced: Reduced | None = None
        if reduction is not None:
            place, shape = self._runs[0].addresses[LOGITS], self._runs[0].shapes[LOGITS]
            logits = DeviceArray(device, place, shape, self._engine.tensors[LOGITS].dtype)
            self._reduced = Reduced(reduction, logits)
        layers = len(arena.capacity)
        itemsize = self._engine.tensors[KEY].dtype.itemsize
        rows = new_rows(self._runs[0], layers, itemsize)
        self._updates = [
            update_of(run, blocks.outputs.arrays, arena, side, rows)
            for side, run in enumerate(self._runs)
        ]
        self._graphs: list[Graph | None] = [None, None]
        self._ran = [False, False]

    def __call__(self, side: int, call: Call, capture: bool) -> tuple[Logits, DeviceUpdate]:
        """Logits and what to commit; both are valid until the next call."""
        run = self._runs[side]
        run.blocks.inputs.put(handed_over(self._engine, call))
        if capture and self._ran[side]:
            graph = self._graphs[side] or self._captured(side)
            self._device.replay(graph)
        else:
            self._queue(side)
            self._ran[side] = True
        self._device.wait()
        if self._reduced is not None:
            return self._reduced.likeliest(), self._updates[side]
        return run.blocks.outputs.arrays[LOGITS], self._updates[side]

    def _queue(self, side: int) -> None:
        self._runs[side].queue()
        if self._reduced is not None:
            self._reduced.queue()

    def _captured(self, side: int) -> Graph:
        try:
            with self._device.capturing() as graphs:
                self._queue(side)
        except BackendError as error:
            raise BackendError(
                f"{self._engine.graph} cannot be captured: {error}; TIGHTROPE_CAPTURE=0 runs it "
                "uncaptured, which is slower"
            ) from error
        self._graphs[side] = graphs[0]
        return graphs[0]
