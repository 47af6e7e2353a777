"""A plugin on the fake driver: a made-up op whose one kernel is `commit`, which is shipped."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from tightrope.errors import BackendError
from tightrope.interface.tensors import TensorSpec
from tightrope.plugins.commit import LayerRow
from tightrope.plugins.description import Description, Step
from tightrope.plugins.kernels.launch import COMPILED
from tightrope.plugins.schema import OpSchema
from tightrope.plugins.tensorrt.layer import plugin_class
from tightrope.runtime.backends.tensorrt.driver import Device
from tightrope.runtime.backends.tensorrt.kernels import Kernels

LANES, CAPACITY, LENGTH, WORDS = 2, 5, 3, 4


def made_up(*steps: Step) -> Description:
    return Description(
        schema=OpSchema(
            name="Commit",
            inputs=(TensorSpec("table", "int64", ("layers", 7)),),
            outputs=(TensorSpec("out", "int32", ("layers",)),),
            attributes={"lanes": LANES, "length": LENGTH, "bytes": 4 * WORDS},
        ),
        reference=lambda *_: (),
        cases=lambda _: iter(()),
        forms=(),
        limits=(),
        steps=steps,
    )


def queued(device: Device, fake: Any) -> Any:
    """Whether rows came where they belong, then what is said of kernels that cannot run."""
    from cuda.bindings import driver

    file = Path(__file__).parent / "fake_builder" / "tensorrt" / "plugins.py"
    spec = importlib.util.spec_from_file_location("fake_plugins", file)
    assert spec is not None and spec.loader is not None
    trt = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(trt)
    kernels = Kernels(device, (COMPILED,))

    def plugin(step: Step) -> Any:
        return plugin_class(trt)(made_up(step), {}, kernels)

    rng = np.random.default_rng(0)
    new = rng.integers(0, 9, (2, LANES, LENGTH, WORDS)).astype(np.int32)
    target = np.array([[4, -1, 0], [1, 2, -1]], np.int32)
    told: list[Any] = []
    with device:
        slots = device.allocate(2 * LANES * CAPACITY * WORDS * 4, "slots")
        rows, places = device.allocate(new.nbytes, "rows"), device.allocate(target.nbytes, "places")
        table = device.allocate(7 * 8, "a table")
        half = new.nbytes // 2
        row = LayerRow(
            slots.address,
            slots.address + slots.nbytes // 2,
            rows.address,
            rows.address + half,
            places.address,
            CAPACITY,
            LENGTH,
        )
        device.fill(slots.address, 0, slots.nbytes)
        for memory, array in ((rows, new), (places, target), (table, np.array(row, np.int64))):
            device.upload(memory.address, array)
        device.wait()
        _, stream = driver.cuStreamCreate(0)
        given: Any = [SimpleNamespace(dims=[1, 7])], [], [table.address], [0], 0, int(stream)
        plugin(Step(kernel="commit", values={"words": "bytes//4"})).enqueue(*given)
        found = np.empty((2, LANES, CAPACITY, WORDS), np.int32)
        device.download(found, slots.address)
        device.wait()
        told.append(not found.any())  # the other stream was not waited for
        driver.cuStreamSynchronize(stream)
        device.download(found, slots.address)
        device.wait()
        wanted = np.zeros_like(found)
        for lane in range(LANES):
            for token, place in enumerate(target[lane]):
                if place >= 0:
                    wanted[:, lane, place] = new[:, lane, token]
        told.append(np.array_equal(found, wanted))
        for step in (Step(kernel="missing_d{lanes}"), Step(kernel="commit")):
            try:
                plugin(step).enqueue(*given)
            except BackendError as error:
                told.append(str(error))
    return told
