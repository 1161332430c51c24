"""Text files that are replaced at once or not at all."""

import os
from pathlib import Path


def replace_text(path: Path, text: str) -> None:
    """Put a text in place of a file, so that a power failure leaves the old text or the new one."""
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
