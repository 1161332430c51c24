"""Measures how fast this machine writes weights, multiplies matrices and hashes, in a few seconds.

The writer writes rows of the checkpoint to a temporary file, so a slow disk is noticed. Rows read
before may come from the system's cache, as in the export.
"""

import hashlib
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from glm_export.job import ExportJob
from glm_export.output.writer import WriteOptions, count_threads, write_sample
from glm_quantize import find_method

_ROUNDS = 3
_RUNS = 16  # runs of the writer in a round, some million weights each
_SIDE = 1024  # rows and columns of the multiplied matrices
_HASHED_BYTES = 1 << 24


@dataclass(frozen=True)
class Speeds:
    """Speeds of this machine, per second.

    Attributes:
        rounded_weights: weights per second, quantized by the job's method or its data-free
            fallback and written.
        copied_weights: weights per second, rounded to nearest and written.
        float_operations: floating point operations per second in float32 matrix products.
        hashed_bytes: bytes per second hashed by SHA-256 in one thread.
    """

    rounded_weights: float
    copied_weights: float
    float_operations: float
    hashed_bytes: float


def probe_speeds(job: ExportJob) -> Speeds:
    """Measure the speeds.

    Raises:
        CheckpointError: a tensor cannot be read, or holds NaN or Inf.
    """
    method = "rtn-search" if find_method(job.method).is_calibrated else job.method
    side = torch.ones(_SIDE, _SIDE)
    product = _measure_seconds(lambda: side @ side)
    content = bytes(_HASHED_BYTES)
    hashing = _measure_seconds(lambda: hashlib.sha256(content).digest())
    copied = _time_writer(job, "rtn")
    return Speeds(
        rounded_weights=copied if method == "rtn" else _time_writer(job, method),
        copied_weights=copied,
        float_operations=2 * _SIDE**3 / product,
        hashed_bytes=_HASHED_BYTES / hashing,
    )


def _time_writer(job: ExportJob, method: str) -> float:
    """Measure the weights per second that the writer quantizes and writes."""
    options = WriteOptions(method, job.options.verify != "none", count_threads())
    written = 0

    def write() -> None:
        nonlocal written
        written = write_sample(job.source.checkpoint, job.plan, path, options, _RUNS)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sample"
        seconds = _measure_seconds(write)
    return written / seconds


def _measure_seconds(work: Callable[[], object]) -> float:
    """Return the shortest of several durations, in case other programs are running."""
    seconds = []
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)
