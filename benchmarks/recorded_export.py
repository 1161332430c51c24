"""An export that notes when each thread read, quantized, wrote, checked and hashed.

    python benchmarks/recorded_export.py SPANS.json CHECKPOINT -o DIR [options of glm-export]

Started by `full_size.py`. The functions that do these things are wrapped; a note costs about a
microsecond for a run of a million weights.
"""

import atexit
import functools
import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from glm_export import cli, writer
from glm_export.checkpoint import Checkpoint
from glm_export.source_hash import SourceHash

_STARTED = time.perf_counter()
# (kind, thread, start, stop), seconds since the start.
Span = tuple[str, int, float, float]
# What each of these does; `_read_back` is called within a write, so writing is without it.
_METHODS: tuple[tuple[str, type, str], ...] = (
    ("reading", Checkpoint, "read_rows"),
    ("quantizing", writer._Writer, "_choose_codes"),
    ("writing", writer.DataFile, "write_rows"),
    ("checking", writer._Writer, "_read_back"),
    ("hashing the source", SourceHash, "_hash"),
)


def record(spans: list[Span], kind: str, owner: type, name: str) -> None:
    """Replace a method by one that notes when it ran."""
    method: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(method)
    def noted(*arguments: Any, **options: Any) -> Any:
        start = time.perf_counter() - _STARTED
        try:
            return method(*arguments, **options)
        finally:
            stop = time.perf_counter() - _STARTED
            spans.append((kind, threading.get_ident(), start, stop))

    setattr(owner, name, noted)


def main() -> None:
    """Entry point."""
    path = Path(sys.argv.pop(1))
    spans: list[Span] = []
    for kind, owner, name in _METHODS:
        record(spans, kind, owner, name)
    atexit.register(lambda: path.write_text(json.dumps(spans), encoding="utf-8"))
    cli.main()


if __name__ == "__main__":
    main()
