"""An export that notes when each thread read, quantized, wrote, checked and hashed.

    python -m benchmarks.memory.recorded_export SPANS.json CHECKPOINT -o DIR [options of glm-export]

`full_size.py` starts it. The functions that do this work are wrapped. A note costs about a
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

from glm_export import cli, pipeline
from glm_export.checkpoint.checkpoint import Checkpoint
from glm_export.checkpoint.source_hash import SourceHash
from glm_export.output import writer

_STARTED = time.perf_counter()
# (kind, thread, start, stop), seconds since the start.
Span = tuple[str, int, float, float]
# None of these calls another of them, so that no second is counted twice.
_FUNCTIONS: tuple[tuple[str, object, str], ...] = (
    ("tracing", pipeline, "_write_graph"),
    ("reading", Checkpoint, "read_rows"),
    ("quantizing", writer._Writer, "_choose_codes"),
    ("packing", writer, "pack_rows"),
    ("writing", writer.DataFile, "write_rows"),
    ("syncing the disk", writer.DataFile, "sync"),
    ("checking", writer._Writer, "_read_back"),
    ("measuring the error", writer, "dequantize"),
    ("measuring the error", writer, "_sum_squares"),
    ("hashing the source", SourceHash, "_hash"),
    ("hashing the folder", pipeline, "describe_folder"),
)


def record(spans: list[Span], kind: str, owner: object, name: str) -> None:
    """Replace a function of a class or module by one that notes when it ran."""
    function: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(function)
    def noted(*arguments: Any, **options: Any) -> Any:
        start = time.perf_counter() - _STARTED
        try:
            return function(*arguments, **options)
        finally:
            stop = time.perf_counter() - _STARTED
            spans.append((kind, threading.get_ident(), start, stop))

    setattr(owner, name, noted)


def main() -> None:
    """Entry point."""
    path = Path(sys.argv.pop(1))
    spans: list[Span] = []
    for kind, owner, name in _FUNCTIONS:
        record(spans, kind, owner, name)
    atexit.register(lambda: path.write_text(json.dumps(spans), encoding="utf-8"))
    cli.main()


if __name__ == "__main__":
    main()
