"""One way to run an engine: its inputs and outputs laid out, its context bound to them."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from tightrope.arrays import Array
from tightrope.runtime.backends.tensorrt.driver import Device
from tightrope.runtime.backends.tensorrt.engine import Context, Shape
from tightrope.runtime.backends.tensorrt.staging import DeviceBlock, Staging


class Blocks:
    """Memory of an engine's small ends: what goes in, what comes back, what stays on the device."""

    def __init__(self, device: Device, what: str) -> None:
        self.inputs, self.outputs = Staging(device, what), Staging(device, what)
        self.stays = DeviceBlock(device, what)


class Run:
    """A context and the memory that it is bound to."""

    def __init__(self, device: Device, context: Context, blocks: Blocks) -> None:
        self.device, self.context, self.blocks = device, context, blocks
        self.shapes: dict[str, Shape] = {}
        """Of the outputs, once it was prepared."""

    def prepare(
        self,
        inputs: Mapping[str, Shape],
        elsewhere: Mapping[str, tuple[Shape, int]],
        stays: Collection[str] = (),
    ) -> None:
        """Lay everything out for one kind of call.

        inputs: shapes of what is handed over. elsewhere: shapes and addresses of inputs and outputs
        that lie on the device already. stays: outputs that are not copied to the host.
        Raises BackendError for a shape that the engine was not built for.
        """
        tensors = self.context.engine.tensors
        found = self.context.shape(
            {**{name: each[0] for name, each in elsewhere.items()}, **inputs}
        )
        self.shapes = {name: shape for name, shape in found.items() if name not in elsewhere}
        layout = {
            name: (shape, tensors[name].dtype) for name, shape in {**inputs, **self.shapes}.items()
        }
        blocks = self.blocks
        blocks.inputs.lay_out({name: layout[name] for name in inputs})
        blocks.stays.lay_out({name: layout[name] for name in stays})
        blocks.outputs.lay_out({name: layout[name] for name in self.shapes if name not in stays})
        addresses = {name: address for name, (_, address) in elsewhere.items()}
        self.context.bind({**addresses, **self.addresses})

    @property
    def addresses(self) -> dict[str, int]:
        """Of all that was laid out, on the device."""
        blocks = self.blocks
        return {**blocks.inputs.addresses, **blocks.stays.addresses, **blocks.outputs.addresses}

    def queue(self) -> None:
        """Queue copying in, running, and copying back."""
        self.blocks.inputs.upload()
        self.context.run(self.device.stream)
        self.blocks.outputs.download()

    def __call__(self, values: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name, in memory that the next call writes again."""
        self.blocks.inputs.put(values)
        self.queue()
        self.device.wait()
        return self.blocks.outputs.arrays
