"""Writing the output folder: complete or not at all, by rows, and resumable."""
