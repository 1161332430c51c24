"""The PyTorch decoder of the GLM family, and what each architecture makes of it."""
