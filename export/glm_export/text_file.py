"""Atomic replacement of text files."""

import os
from pathlib import Path


def replace_text(path: Path, text: str) -> None:
    """Replace a file's text, so that a power failure leaves either the old or the new text."""
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
