"""What is read of a checkpoint: tensors, config values, license, quantized formats."""
