"""Reading checkpoints: tensors, config values, licenses and pre-quantized formats."""
