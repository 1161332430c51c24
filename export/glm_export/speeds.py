"""How fast this machine writes weights, multiplies and hashes: a few seconds of each.

Rows of the checkpoint itself go through the writer into a file that is thrown away, so that a slow
disk shows; what was read lately comes from the cache, as it may in the export.
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
_RUNS = 16  # of the writer, a round: some million weights each
_SIDE = 1024  # of the matrices that are multiplied
_HASHED_BYTES = 1 << 24


@dataclass(frozen=True)
class Speeds:
    """A second's work of the whole machine.

    Attributes:
        rounded_weights: written, with codes by the job's method as far as it needs no statistics.
        copied_weights: written, with codes that cost next to nothing to choose.
        float_operations: of a float32 matrix product.
        hashed_bytes: SHA-256, one thread.
    """

    rounded_weights: float
    copied_weights: float
    float_operations: float
    hashed_bytes: float


def probe_speeds(job: ExportJob) -> Speeds:
    """Time some of the work.

    Raises:
        CheckpointError: a tensor cannot be read, or holds NaN or Inf.
    """
    method = "rtn-search" if find_method(job.method).is_calibrated else job.method
    side = torch.ones(_SIDE, _SIDE)
    product = _take_time(lambda: side @ side)
    content = bytes(_HASHED_BYTES)
    hashing = _take_time(lambda: hashlib.sha256(content).digest())
    copied = _time_writer(job, "rtn")
    return Speeds(
        rounded_weights=copied if method == "rtn" else _time_writer(job, method),
        copied_weights=copied,
        float_operations=2 * _SIDE**3 / product,
        hashed_bytes=_HASHED_BYTES / hashing,
    )


def _time_writer(job: ExportJob, method: str) -> float:
    """Weights a second."""
    options = WriteOptions(method, job.options.verify != "none", count_threads())
    written = 0

    def write() -> None:
        nonlocal written
        written = write_sample(job.source.checkpoint, job.plan, path, options, _RUNS)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sample"
        seconds = _take_time(write)
    return written / seconds


def _take_time(work: Callable[[], object]) -> float:
    """Seconds, the least of some rounds: what else runs now may have ended by then."""
    seconds = []
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)
