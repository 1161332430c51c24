"""How fast this machine reads, rounds, multiplies and hashes: a few seconds of each.

Rows of the checkpoint itself are rounded, so that a slow disk shows; what was read lately comes
from the cache, as it may in the export.
"""

import hashlib
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from glm_export.job import ExportJob
from glm_export.plan import TensorPlan
from glm_quantize import find_method, pack_rows
from glm_runtime.machine import count_usable_cores

_ROUNDS = 5
_SIDE = 1024  # of the matrices that are multiplied
_HASHED_BYTES = 1 << 24
# A weight is read, perhaps rounded, packed, written, read back and compared: of these, all but
# rounding take about as long as packing does four times.
_COPIES = 4.0


@dataclass(frozen=True)
class Speeds:
    """A second's work of the whole machine.

    Attributes:
        rounded_weights: read, rounded by the job's method without statistics, and packed.
        copied_weights: read and written as they are.
        float_operations: of a float32 matrix product.
        hashed_bytes: SHA-256, one thread.
    """

    rounded_weights: float
    copied_weights: float
    float_operations: float
    hashed_bytes: float


def probe_speeds(job: ExportJob) -> Speeds:
    """Time runs of rows, a matrix product and a hash."""
    threads = min(4, count_usable_cores())
    tensor = _choose_tensor(job)
    read, rounded = _time_rows(job, tensor)
    side = torch.ones(_SIDE, _SIDE)
    product = _take_time(lambda: side @ side)
    content = bytes(_HASHED_BYTES)
    hashing = _take_time(lambda: hashlib.sha256(content).digest())
    return Speeds(
        rounded_weights=threads / (read * _COPIES + rounded),
        copied_weights=threads / (read * _COPIES),
        float_operations=2 * _SIDE**3 / product,
        hashed_bytes=_HASHED_BYTES / hashing,
    )


def _choose_tensor(job: ExportJob) -> TensorPlan:
    """The largest of the first layer."""
    tensors = [t for name, t in job.plan.tensors.items() if name.startswith("layers.0.")]
    return max(tensors, key=lambda tensor: tensor.num_weights)


def _time_rows(job: ExportJob, tensor: TensorPlan) -> tuple[float, float]:
    """Seconds a weight: of reading, and of rounding and packing on top."""
    assert tensor.source is not None
    if tensor.matrix is not None:
        start, stop = next(iter(tensor.matrix.linears[0].iterate_chunks()))
        matrix = tensor.matrix
        count = (stop - start) * tensor.shape[1]
        return _take_time(lambda: matrix.read_rows(0, start, stop)) / count, 0.0
    checkpoint, (name, _) = job.source.checkpoint, tensor.source.tensors[0]
    chunks = itertools.cycle(checkpoint.iterate_chunks(name))  # another one each time
    start, stop = next(chunks)
    rows = checkpoint.read_rows(name, start, stop)
    reading = _take_time(lambda: checkpoint.read_rows(name, *next(chunks))) / rows.size
    scheme = tensor.scheme
    if scheme is None:
        return reading, 0.0
    method = find_method(job.method)
    rounder = find_method("rtn-search") if method.is_calibrated else method
    rounding = _take_time(lambda: pack_rows(rounder(rows, scheme))) / rows.size
    return reading, rounding


def _take_time(work: Callable[[], object]) -> float:
    """Seconds, the least of some rounds: what else runs now may have ended by then."""
    seconds = []
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)
