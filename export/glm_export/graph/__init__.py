"""The ONNX graph: traced from PyTorch, rewritten by passes, and run for verification."""
