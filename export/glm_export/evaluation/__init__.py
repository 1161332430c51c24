"""Comparison of a folder with its checkpoint: verification, glm-eval and its pictures."""
