"""Whether a bundle answers on this machine as where it was exported.

`trials` calls each graph once and keeps a sample of what it gives, `steps` teaches tokens and keeps
their logits; `record` writes both to `selftest.npz` at export, `check` holds a backend against them
and `report` makes one file of what came of it. `ops` holds every face of every own op against its
reference: `bodies` on ONNX Runtime, `kernels` on a GPU.
"""
