"""What we ask of TensorRT, held against one version of NVIDIA's own bindings.

    python resolve.py FOLDER LIBRARY...

imports `tensorrt_bindings` from FOLDER with the stand-in libraries, runs the program that parses
and builds a graph on it and the backend's part that runs engines, and makes our plugins on its
classes; prints as one line of JSON what was asked for and what is not there, what the plugins told,
and which names the fake TensorRT has made up.
One process a version: a second import of the bindings fails.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any


def build_on(recorder: Any, real: Any) -> list[str]:
    """A plan by the parser that this version has: from files, or with weights that are mapped."""
    import tempfile

    import onnx

    from tightrope.runtime.backends.tensorrt import versions
    from tightrope.runtime.backends.tensorrt.build import build_plan

    # What is missing is noted by the recorder, and then looks as if it were there.
    versions.takes_initializers = lambda parser: hasattr(real.OnnxParser, "load_initializer")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "graph.onnx"
        (file.parent / "weights.data").write_bytes(bytes(8))
        tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[2])
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in {"location": "weights.data", "offset": "0", "length": "8"}.items():
            tensor.external_data.add(key=key, value=value)
        graph = onnx.GraphProto(name="g", initializer=[tensor])
        file.write_bytes(onnx.ModelProto(graph=graph).SerializeToString())
        built = build_plan(recorder, file, {"S": (1, 2, 3)}, timing=b"earlier")
    return [built.plan.decode(), built.timing.decode()]


def run_engines(trt: Any, values: dict[str, Any], real: Any) -> None:
    """Everything that the backend does with an engine of one input, then of one output."""
    from tightrope.interface.names import GraphName
    from tightrope.interface.tensors import TensorSpec
    from tightrope.runtime.backends.tensorrt.engine import Engine

    values |= {
        "ICudaEngine.get_tensor_name": "S",
        "ICudaEngine.get_tensor_dtype": real.DataType.FLOAT,
        "ICudaEngine.get_tensor_profile_shape": [(1,), (1,), (1,)],
        "IExecutionContext.infer_shapes": [],
        "IExecutionContext.set_optimization_profile_async": True,
        "IExecutionContext.get_tensor_shape": (1,),
    }
    rows, scratch = (TensorSpec("S", "float32", ("N",)),), SimpleNamespace(address=256)
    for mode in (real.TensorIOMode.INPUT, real.TensorIOMode.OUTPUT):
        values["ICudaEngine.get_tensor_mode"] = mode
        graph = GraphName("standard", "vision")
        engine = Engine(trt, graph, memoryview(b"plan"), rows, "float16").for_tokens()
        context = engine.context(scratch, 1)  # type: ignore[arg-type]  # no device is here
        context.shape({"S": (1,)})
        context.bind({"S": 256})
        context.run(1)


def made_up(real: Any) -> list[str]:
    """What the fake TensorRT has and this version does not."""
    import fake_tensorrt  # type: ignore[import-not-found]

    classes = [
        each
        for each in vars(fake_tensorrt).values()
        if isinstance(each, type) and each.__module__ == fake_tensorrt.__name__
    ]
    return [
        f"{each.__name__}.{name}"
        for each in classes
        if not each.__name__.startswith("_")
        for name in vars(each)
        if not name.startswith("_") and not hasattr(getattr(real, each.__name__, None), name)
    ]


def main() -> None:
    folder, *libraries = sys.argv[1:]
    for library in libraries:
        ctypes.CDLL(library, ctypes.RTLD_GLOBAL)
    sys.path[:0] = [folder, str(Path(__file__).parent)]
    import tensorrt_bindings
    from recorder import Instance, Recorder  # type: ignore[import-not-found]

    values: dict[str, Any] = {
        "ITensor.shape": (-1, 8),
        "ITensor.is_shape_tensor": False,
        "Builder.build_serialized_network": b"plan",
        "ITimingCache.serialize": b"measured",
    }
    recorder = Recorder(tensorrt_bindings, values)
    registry = tensorrt_bindings.IPluginRegistry
    values["get_plugin_registry"] = Instance(recorder, registry, "IPluginRegistry")
    module = ModuleType("tensorrt_rtx")
    module.__getattr__ = recorder.__getattr__  # type: ignore[method-assign]
    sys.modules["tensorrt_rtx"] = module
    from plugin_lives import lives  # type: ignore[import-not-found]

    from tightrope.export.check.rtx_process import check

    result = check("graph.onnx", {"S": (1, 2, 3)})
    built = build_on(recorder, tensorrt_bindings)
    values["OnnxParser.parse_from_file"] = False
    refused = check("graph.onnx", {})
    run_engines(recorder, values, tensorrt_bindings)
    plugins = lives(tensorrt_bindings, recorder)
    print(
        json.dumps(
            {
                "version": tensorrt_bindings.__version__,
                "results": [result["message"], refused["message"]],
                "built": built,
                "plugins": plugins,
                "asked": sorted(recorder.asked),
                "missing": sorted(set(recorder.missing)),
                "made_up": made_up(tensorrt_bindings),
            }
        ),
        flush=True,
    )
    os._exit(0)  # see `plugin_lives`: plugins are never dropped


if __name__ == "__main__":
    main()
