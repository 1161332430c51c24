"""Runs the ONNX graph: providers, the KV cache, decode steps, this machine."""
