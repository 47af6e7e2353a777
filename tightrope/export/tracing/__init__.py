"""Hugging Face's own modelling code, traced into ONNX with one node per own op.

The code is never edited, weights are never touched: `attention` and `ops` are the seams, `trace`
runs torch's exporter over fake tensors, `decoder` and `tower` say what is traced.
"""
