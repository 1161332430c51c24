"""Calibration: measurements of the original model on a text, before its weights are quantized."""
