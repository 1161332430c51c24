"""The ONNX graph: traced from PyTorch, rewritten by passes, run for its logits."""
