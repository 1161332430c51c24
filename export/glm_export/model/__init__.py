"""The PyTorch decoder of the GLM family, and its architectures."""
