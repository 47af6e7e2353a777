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
        "Builder.build_serialized_network": b"",
    }
    recorder = Recorder(tensorrt_bindings, values)
    module = ModuleType("tensorrt_rtx")
    module.__getattr__ = recorder.__getattr__  # type: ignore[method-assign]
    sys.modules["tensorrt_rtx"] = module
    from tightrope.export.check.rtx_process import check

    result = check("graph.onnx", {"S": (1, 2, 3)})
    values["OnnxParser.parse_from_file"] = False
    refused = check("graph.onnx", {})
    print(
        json.dumps(
            {
                "version": tensorrt_bindings.__version__,
                "results": [result["message"], refused["message"]],
                "asked": sorted(recorder.asked),
                "missing": sorted(set(recorder.missing)),
            }
        )
    )


if __name__ == "__main__":
    main()
