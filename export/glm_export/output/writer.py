"""Writing the data file: read a run of rows, convert or quantize it, and write it in its place.

Memory is a few runs of a million numbers each, for any size of model. With `is_checked` every run
is read back from the file and compared. Read `plan.py` before.
"""

import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from glm_export.calibration.folding import Folding
from glm_export.calibration.state import CalibrationState
from glm_export.checkpoint.checkpoint import Checkpoint
from glm_export.checkpoint.prequantized import QuantizedMatrix
from glm_export.errors import CheckpointError, VerificationError, describe_overflow
from glm_export.output.written_tensors import WeightError, WrittenTensors, open_written
from glm_export.plan.plan import NUMPY_DTYPES, ExportPlan, Segment, TensorPlan
from glm_quantize import (
    FloatArray,
    PackedRows,
    QuantizationError,
    QuantizedRows,
    dequantize,
    find_method,
    pack_rows,
    round_scales,
    unpack_rows,
)
from glm_runtime.graph.machine import count_usable_cores
from glm_runtime.progress import Advance

Array = npt.NDArray[np.generic]


_MOST_THREADS = 4  # each holds about 30 MB of rows; beyond four the disk is the limit


@dataclass(frozen=True)
class WriteOptions:
    """How the data file is written.

    Attributes:
        method: name of the quantization method for matrices without calibrated codes.
        is_checked: True to read every run back and compare it.
        threads: number of runs processed at the same time.
        state: calibrated codes; None if there are none.
        folding: scales to fold into the float values (AWQ).
    """

    method: str
    is_checked: bool
    threads: int
    state: CalibrationState | None = None
    folding: Folding = field(default_factory=Folding)


@dataclass(frozen=True)
class WriteReport:
    """Result of writing all tensors.

    Attributes:
        errors: rounding error of each parameter; zero if the parameter stays float.
        kept: number of tensors that an earlier run had written.
    """

    errors: Mapping[str, WeightError]
    kept: int


@dataclass(frozen=True)
class _Run:
    """Rows start ... stop of source tensor `index` of a parameter, and their first row in it."""

    tensor: TensorPlan
    source: str
    index: int
    start: int
    stop: int
    first_row: int

    @property
    def is_last(self) -> bool:
        """True for the last run of a parameter."""
        return self.first_row + self.stop - self.start == self.tensor.shape[0]

    @property
    def num_weights(self) -> int:
        """Number of weights in the run."""
        return (self.stop - self.start) * (self.tensor.num_weights // self.tensor.shape[0])


class DataFile:
    """A file of known size that several threads write at given offsets.

    Raises:
        OSError: the file cannot be written; `stage_folder` turns this into an OutputError.
    """

    def __init__(self, path: Path, size_bytes: int, *, is_kept: bool) -> None:
        if not is_kept:  # a killed run may have linked it into a finished folder
            path.unlink(missing_ok=True)
        self._file = path.open("r+b" if is_kept else "w+b", buffering=0)
        self._lock = threading.Lock()
        self._file.truncate(size_bytes)

    def write_rows(self, segment: Segment, first_row: int, rows: Array) -> None:
        """Write rows into their segment."""
        data = np.ascontiguousarray(rows, dtype=NUMPY_DTYPES[segment.dtype]).view(np.uint8)
        view = memoryview(data.tobytes())
        with self._lock:
            self._file.seek(segment.offset_bytes + first_row * segment.row_bytes)
            while view:
                view = view[self._file.write(view) or 0 :]

    def read_rows(self, segment: Segment, first_row: int, count: int) -> Array:
        """Read rows of a segment back from the file."""
        with self._lock:
            self._file.seek(segment.offset_bytes + first_row * segment.row_bytes)
            data = self._file.read(count * segment.row_bytes)
        dtype = np.dtype(NUMPY_DTYPES[segment.dtype])
        return np.frombuffer(data or b"", dtype=dtype).reshape(count, *segment.shape[1:])

    def sync(self) -> None:
        """Wait until the disk has the bytes."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Release the file."""
        self._file.close()


def count_threads() -> int:
    """Return the number of runs to process at the same time on this machine."""
    return min(_MOST_THREADS, count_usable_cores())


def write_weights(
    checkpoint: Checkpoint, plan: ExportPlan, path: Path, options: WriteOptions, advance: Advance
) -> WriteReport:
    """Write every checkpoint tensor of the plan that an earlier run has not written.

    Args:
        checkpoint: source of the tensors.
        plan: layout of the data file.
        path: data file; the list of its complete tensors is next to it, see `written_tensors.py`.
        options: method, checking, threads.
        advance: called with the number of weights just written.

    Raises:
        CheckpointError: a tensor holds NaN or Inf, or cannot be read.
        OSError: the file cannot be written.
        VerificationError: the bytes read back differ from those written.
    """
    written = open_written(path, plan, is_checked=options.is_checked)
    kept = len(written.errors)
    advance(sum(plan.tensors[name].num_weights for name in written.errors))
    with closing(DataFile(path, plan.size_bytes, is_kept=kept > 0)) as file:
        try:
            _write_runs(checkpoint, plan, _Writer(checkpoint, file, options), written, advance)
        except KeyboardInterrupt:
            written.save(file.sync)
            raise
        written.save(file.sync)
    return WriteReport(written.errors, kept)


def write_sample(
    checkpoint: Checkpoint, plan: ExportPlan, path: Path, options: WriteOptions, runs: int
) -> int:
    """Write some runs of a layer's largest tensor as `write_weights` does, to measure the speed.

    Returns:
        Number of weights written.
    """
    layer = [tensor for name, tensor in plan.tensors.items() if name.startswith("layers.0.")]
    largest = max(layer, key=lambda tensor: tensor.num_weights)
    sample = list(islice(_split_into_runs(checkpoint, [largest]), runs))
    end = max(segment.offset_bytes + segment.size_bytes for segment in largest.segments)
    with closing(DataFile(path, end, is_kept=path.exists())) as file:
        writer = _Writer(checkpoint, file, options)
        with ThreadPoolExecutor(options.threads) as pool:
            list(pool.map(writer.write, sample))
    return sum(run.num_weights for run in sample)


def _write_runs(
    checkpoint: Checkpoint,
    plan: ExportPlan,
    writer: "_Writer",
    written: WrittenTensors,
    advance: Advance,
) -> None:
    """Write several runs at a time; results come in order, so the last run completes a tensor."""
    pool = ThreadPoolExecutor(writer.threads)
    try:
        tensors = [one for one in plan.tensors.values() if one.name not in written.errors]
        runs = list(_split_into_runs(checkpoint, tensors))
        total = WeightError()
        for run, error in zip(runs, pool.map(writer.write, runs), strict=True):
            total += error
            if run.is_last:
                written.add(run.tensor.name, total, writer.sync)
                total = WeightError()
            advance(run.num_weights)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def write_tables(
    plan: ExportPlan, tables: Mapping[str, FloatArray], path: Path, *, is_checked: bool
) -> None:
    """Write the computed tensors and the orders of inputs into the existing data file.

    Args:
        plan: layout of the data file.
        tables: computed tensors (rotation tables) by name.
        path: data file.
        is_checked: True to read every tensor back and compare it.

    Raises:
        OSError: the file cannot be written.
        VerificationError: the bytes read back differ from those written.
    """
    arrays: list[tuple[Segment, Array]] = [
        (plan.tensors[name].segments[0], table) for name, table in tables.items()
    ]
    for tensor in plan.tensors.values():
        if tensor.order is not None and tensor.matrix is not None:
            assert tensor.matrix.order is not None
            arrays.append((tensor.order, tensor.matrix.order))
    with closing(DataFile(path, plan.size_bytes, is_kept=True)) as file:
        for segment, array in arrays:
            stored = array.astype(NUMPY_DTYPES[segment.dtype])
            _store(file, segment, 0, stored, is_checked=is_checked)
        file.sync()


def _split_into_runs(checkpoint: Checkpoint, tensors: Iterable[TensorPlan]) -> Iterator[_Run]:
    for tensor in tensors:
        row = 0
        for index, (name, shape) in enumerate(tensor.source.tensors if tensor.source else ()):
            linear = tensor.matrix.linears[index] if tensor.matrix else None
            chunks = linear.iterate_chunks() if linear else checkpoint.iterate_chunks(name)
            for start, stop in chunks:
                yield _Run(tensor, name, index, start, stop, row + start)
            row += shape[0]


class _Writer:
    """Writes one run per call; several threads call it."""

    def __init__(self, checkpoint: Checkpoint, file: DataFile, options: WriteOptions) -> None:
        self._checkpoint, self._file, self._options = checkpoint, file, options
        self._is_checked = options.is_checked
        self.threads, self.sync = options.threads, file.sync

    def write(self, run: _Run) -> WeightError:
        """Read, convert and write one run, and check it if `is_checked`."""
        if run.tensor.matrix is not None:
            self._write_imported(run, run.tensor.matrix)
            return WeightError()
        rows = self._checkpoint.read_rows(run.source, run.start, run.stop)
        rows = self._options.folding.apply(run.tensor.name, run.first_row, rows)
        if run.tensor.scheme is None:
            self._write_float(run, rows)
            return WeightError()
        return self._write_quantized(run, rows)

    def _write_float(self, run: _Run, rows: FloatArray) -> None:
        (segment,) = run.tensor.segments
        with np.errstate(over="ignore"):  # checked on the next line
            stored = rows.astype(NUMPY_DTYPES[segment.dtype])
        _require_finite(run, stored, segment.dtype)
        _store(self._file, segment, run.first_row, stored, is_checked=self._is_checked)

    def _write_quantized(self, run: _Run, rows: FloatArray) -> WeightError:
        quantized = self._choose_codes(run, rows)
        quantized = round_scales(quantized, run.tensor.segments[1].dtype)
        quantized = self._write_codes(run, quantized)
        difference = dequantize(quantized)
        difference -= rows
        return WeightError(_sum_squares(difference), _sum_squares(rows))

    def _choose_codes(self, run: _Run, rows: FloatArray) -> QuantizedRows:
        scheme, name, state = run.tensor.scheme, run.tensor.name, self._options.state
        assert scheme is not None
        if state is not None and state.has_codes(name):
            stored = range(run.first_row, run.first_row + len(rows))
            return state.read_codes(name, scheme, rows.shape[1], stored)
        try:
            return find_method(self._options.method)(rows, scheme)
        except QuantizationError as error:
            raise CheckpointError(f"{run.source}, rows {run.start}-{run.stop}: {error}") from error

    def _write_imported(self, run: _Run, matrix: QuantizedMatrix) -> None:
        """Copy the checkpoint's codes; refuse scales that would have to be rounded."""
        quantized = matrix.read_rows(run.index, run.start, run.stop)
        dtype = run.tensor.segments[1].dtype
        if not np.array_equal(round_scales(quantized, dtype).scales, quantized.scales):
            raise CheckpointError(
                f"{run.source}, rows {run.start}-{run.stop}: the checkpoint's scales are not "
                f"exact in {dtype}; export with --dtype fp32."
            )
        self._write_codes(run, quantized)

    def _write_codes(self, run: _Run, quantized: QuantizedRows) -> QuantizedRows:
        """Write codes, check them if `is_checked`, and return them as stored."""
        segments = run.tensor.segments
        _require_finite(run, quantized.scales, segments[1].dtype)
        if len(segments) > 2 and quantized.zero_points is None:
            zero_points = np.full(quantized.scales.shape, quantized.scheme.default_zero_point)
            quantized = replace(quantized, zero_points=zero_points.astype(np.uint8))
        for segment, part in zip(segments, _list_parts(pack_rows(quantized)), strict=True):
            self._file.write_rows(segment, run.first_row, part)
        return self._read_back(run, quantized) if self._is_checked else quantized

    def _read_back(self, run: _Run, expected: QuantizedRows) -> QuantizedRows:
        """Read the run back, compare it with the expected codes, and return it."""
        segments = run.tensor.segments
        parts = [self._file.read_rows(s, run.first_row, run.stop - run.start) for s in segments]
        packed, zero_points = (
            parts[0].view(np.uint8),
            parts[2].view(np.uint8) if parts[2:] else None,
        )
        stored = PackedRows(packed, parts[1].astype(np.float32), zero_points)
        found = unpack_rows(stored, expected.scheme)
        _require_equal(segments[0], found.codes, expected.codes)
        _require_equal(segments[1], found.scales, expected.scales)
        if found.zero_points is not None and expected.zero_points is not None:
            _require_equal(segments[2], found.zero_points, expected.zero_points)
        return found


def _store(file: DataFile, segment: Segment, row: int, stored: Array, *, is_checked: bool) -> None:
    """Write rows from `row` on, and compare them with the file if `is_checked`."""
    file.write_rows(segment, row, stored)
    if is_checked:
        _require_equal(segment, file.read_rows(segment, row, len(stored)), stored)


def _list_parts(packed: PackedRows) -> list[Array]:
    parts: list[Array] = [packed.packed, packed.scales]
    return parts if packed.zero_points is None else [*parts, packed.zero_points]


def _sum_squares(values: FloatArray) -> float:
    flat = values.reshape(-1)
    with np.errstate(over="ignore"):
        total = float(np.dot(flat, flat))
    return total if np.isfinite(total) else float(np.sum(np.square(flat, dtype=np.float64)))


def _require_finite(run: _Run, stored: Array, dtype: str) -> None:
    if not np.isfinite(stored.astype(np.float32, copy=False)).all():
        raise describe_overflow(f"{run.source}, rows {run.start}-{run.stop} have", dtype)


def _require_equal(segment: Segment, found: Array, expected: Array) -> None:
    if not np.array_equal(found, expected):
        raise VerificationError(
            f"{segment.name}: the file does not hold what was written; check the disk."
        )
