"""Our ops as plugins of TensorRT: one class for all of them, driven by each op's description.

`trt` is the module itself throughout, so that nothing here imports it.
"""
