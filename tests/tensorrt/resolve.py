"""What our builder asks of TensorRT, held against one version of NVIDIA's own bindings.

    python resolve.py FOLDER LIBRARY...

imports `tensorrt_bindings` from FOLDER with the stand-in libraries, runs the program that parses
and builds a graph on it, and prints as one line of JSON what it asked for and what is not there.
One process a version: a second import of the bindings fails.
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path
from types import ModuleType
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


def main() -> None:
    folder, *libraries = sys.argv[1:]
    for library in libraries:
        ctypes.CDLL(library, ctypes.RTLD_GLOBAL)
    sys.path[:0] = [folder, str(Path(__file__).parent)]
    import tensorrt_bindings
    from recorder import Recorder  # type: ignore[import-not-found]

    values = {
        "ITensor.shape": (-1, 8),
        "ITensor.is_shape_tensor": False,
        "Builder.build_serialized_network": b"plan",
        "ITimingCache.serialize": b"measured",
    }
    recorder = Recorder(tensorrt_bindings, values)
    module = ModuleType("tensorrt_rtx")
    module.__getattr__ = recorder.__getattr__  # type: ignore[method-assign]
    sys.modules["tensorrt_rtx"] = module
    from tightrope.export.check.rtx_process import check

    result = check("graph.onnx", {"S": (1, 2, 3)})
    built = build_on(recorder, tensorrt_bindings)
    values["OnnxParser.parse_from_file"] = False
    refused = check("graph.onnx", {})
    print(
        json.dumps(
            {
                "version": tensorrt_bindings.__version__,
                "results": [result["message"], refused["message"]],
                "built": built,
                "asked": sorted(recorder.asked),
                "missing": sorted(set(recorder.missing)),
            }
        )
    )


if __name__ == "__main__":
    main()
