"""The data file against one made of whole weights, in one thread and with `numpy` alone."""

import os
from collections.abc import Iterator
from io import RawIOBase
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import glm_export.checkpoint.checkpoint as checkpoint_module
import glm_export.output.writer as writer_module
from glm_export.calibration.folding import Folding
from glm_export.calibration.state import open_state
from glm_export.checkpoint.source_model import SourceModel, open_source
from glm_export.errors import CheckpointError, VerificationError
from glm_export.model.rotary import stored_tables
from glm_export.output.writer import (
    DataFile,
    WriteOptions,
    write_sample,
    write_tables,
    write_weights,
)
from glm_export.plan.plan import NUMPY_DTYPES, ExportPlan, Segment, build_plan
from glm_quantize import Scheme, dequantize, find_method, pack_rows, round_scales
from support.broken_checkpoints import poison, write_small

SCHEMES = {
    "layers.0.qkv_proj.weight": Scheme(4, 32, is_symmetric=False),
    "layers.0.o_proj.weight": Scheme(8, 64, is_symmetric=True),
    "layers.0.down_proj.weight": Scheme(4, 32, is_symmetric=True),
}
QKV = "layers.0.qkv_proj.weight"
CHUNK_ROWS = 8


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SourceModel:
    """A small checkpoint, which is read in runs of eight rows."""
    monkeypatch.setattr(checkpoint_module, "_CHUNK_ELEMENTS", CHUNK_ROWS * 64)
    return open_source(write_small(tmp_path / "checkpoint"))


def make_plan(source: SourceModel, dtype: str) -> ExportPlan:
    return build_plan(source.config, source.parameters, SCHEMES, dtype)


def expected_parts(source: SourceModel, plan: ExportPlan) -> Iterator[tuple[Segment, np.ndarray]]:
    for name in source.parameters:
        tensor, weight = plan.tensors[name], source.read_parameter(name)
        if tensor.scheme is None:
            yield tensor.segments[0], weight
            continue
        rows = find_method("rtn")(weight, tensor.scheme)
        packed = pack_rows(round_scales(rows, tensor.segments[1].dtype))
        parts = (packed.packed, packed.scales, packed.zero_points)
        for segment, part in zip(tensor.segments, parts, strict=False):
            assert part is not None
            yield segment, part


def read_segment(path: Path, segment: Segment) -> np.ndarray:
    dtype = np.dtype(NUMPY_DTYPES[segment.dtype])
    count = segment.size_bytes // dtype.itemsize
    data = np.fromfile(path, dtype, count, offset=segment.offset_bytes)
    return data.reshape(segment.shape)


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
@pytest.mark.parametrize("is_checked", [True, False])
@pytest.mark.parametrize("threads", [1, 3])
def test_every_tensor_is_in_its_place(
    source: SourceModel, tmp_path: Path, dtype: str, is_checked: bool, threads: int
) -> None:
    plan, path, done = make_plan(source, dtype), tmp_path / "data", list[int]()
    options = WriteOptions("rtn", is_checked, threads)
    report = write_weights(source.checkpoint, plan, path, options, done.append)
    assert path.stat().st_size == plan.size_bytes
    for segment, part in expected_parts(source, plan):
        stored = part.astype(NUMPY_DTYPES[segment.dtype])
        np.testing.assert_array_equal(read_segment(path, segment), stored, segment.name)
    assert sum(done) == plan.parameters
    assert max(done) <= CHUNK_ROWS * 64 or len(done) > 10
    assert report.kept == 0 and set(report.errors) == set(source.parameters)


def test_the_report_says_what_rounding_did(source: SourceModel, tmp_path: Path) -> None:
    """The sums are over all runs of a tensor, and a float tensor has no error."""
    plan, options = make_plan(source, "fp16"), WriteOptions("rtn", is_checked=False, threads=2)
    report = write_weights(source.checkpoint, plan, tmp_path / "data", options, lambda _: None)
    for name in source.parameters:
        scheme, error = plan.tensors[name].scheme, report.errors[name]
        if scheme is None:
            assert error.squared_error == error.squared_weight == 0
            continue
        weight = source.read_parameter(name)
        stored_dtype = plan.tensors[name].segments[1].dtype
        rows = round_scales(find_method("rtn")(weight, scheme), stored_dtype)
        difference = dequantize(rows).astype(np.float64) - weight
        assert error.squared_error == pytest.approx(np.square(difference).sum(), rel=1e-5)
        assert error.squared_weight == pytest.approx(np.square(weight).sum(), rel=1e-5)


def test_squares_that_float32_cannot_hold_are_still_summed(
    source: SourceModel, tmp_path: Path
) -> None:
    """1e30 squared is infinite in float32; the error would be reported as NaN."""
    poison(tmp_path / "checkpoint", "model.layers.0.self_attn.q_proj.weight", 1e30)
    source = open_source(tmp_path / "checkpoint")
    plan, options = make_plan(source, "fp32"), WriteOptions("rtn", is_checked=False, threads=1)
    report = write_weights(source.checkpoint, plan, tmp_path / "data", options, lambda _: None)
    assert report.errors[QKV].squared_weight == pytest.approx(1e60, rel=1e-5)
    assert 0 < report.errors[QKV].relative < 1


@pytest.mark.parametrize(("interrupted_at", "fewest", "most"), [(42, 1, 1), (60, 2, 99)])
@pytest.mark.parametrize("is_checked", [True, False])
def test_an_interrupted_file_is_continued_and_not_written_again(
    source: SourceModel,
    tmp_path: Path,
    is_checked: bool,
    interrupted_at: int,
    fewest: int,
    most: int,
) -> None:
    """Also where only the embedding, which is 40 runs, was complete."""
    plan, path = make_plan(source, "fp16"), tmp_path / "data"
    options = WriteOptions("rtn", is_checked, threads=1)
    calls = 0

    def interrupt(_: int) -> None:
        nonlocal calls
        calls += 1
        if calls == interrupted_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_weights(source.checkpoint, plan, path, options, interrupt)
    whole, done = tmp_path / "whole", list[int]()
    report = write_weights(source.checkpoint, plan, path, options, done.append)
    assert fewest <= report.kept <= min(most, len(source.parameters) - 1)
    assert done[0] > CHUNK_ROWS * 64  # what was kept is counted at once
    assert sum(done) == plan.parameters
    whole.mkdir()
    again = write_weights(source.checkpoint, plan, whole / "data", options, lambda _: None)
    assert path.read_bytes() == (whole / "data").read_bytes()
    assert report.errors == again.errors
    done.clear()
    assert write_weights(source.checkpoint, plan, path, options, done.append).kept == len(
        source.parameters
    )
    assert [one for one in done if one] == [plan.parameters]


def test_a_file_shared_with_a_finished_folder_is_left_alone(
    source: SourceModel, tmp_path: Path
) -> None:
    """A killed run may have linked the file into the finished folder."""
    plan, path = make_plan(source, "fp32"), tmp_path / "data"
    finished = tmp_path / "finished"
    finished.write_bytes(b"finished")
    os.link(finished, path)
    options = WriteOptions("rtn", is_checked=False, threads=1)
    write_weights(source.checkpoint, plan, path, options, lambda _: None)
    assert finished.read_bytes() == b"finished"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("embed_tokens", 1e5),
        ("embed_tokens", np.nan),
        ("layers.0.self_attn.q_proj", 1e7),  # its scale would be infinite in float16
    ],
)
def test_a_number_that_its_type_cannot_hold_is_named(
    source: SourceModel, tmp_path: Path, name: str, value: float
) -> None:
    poison(tmp_path / "checkpoint", f"model.{name}.weight", value)
    source = open_source(tmp_path / "checkpoint")
    plan, options = make_plan(source, "fp16"), WriteOptions("rtn", is_checked=False, threads=1)
    with pytest.raises(CheckpointError, match=rf"{name}.weight, rows \d+-\d+ have NaN, Inf or"):
        write_weights(source.checkpoint, plan, tmp_path / "data", options, lambda _: None)


def test_calibrated_codes_come_before_the_method(source: SourceModel, tmp_path: Path) -> None:
    """Runs of eight rows take their own part of the codes that calibration kept."""
    scheme, weight = SCHEMES[QKV], source.read_parameter(QKV)
    (tmp_path / "state").mkdir()
    state = open_state(tmp_path / "state")
    chosen = find_method("rtn")(np.ascontiguousarray(weight[::-1]), scheme)
    state.write_codes(QKV, 0, chosen)
    plan, path = make_plan(source, "fp32"), tmp_path / "data"
    options = WriteOptions("rtn", is_checked=True, threads=2, state=state)
    write_weights(source.checkpoint, plan, path, options, lambda _: None)
    packed = pack_rows(chosen)
    for segment, part in zip(
        plan.tensors[QKV].segments, (packed.packed, packed.scales, packed.zero_points), strict=True
    ):
        np.testing.assert_array_equal(read_segment(path, segment), part)


def test_folded_scales_reach_every_run(source: SourceModel, tmp_path: Path) -> None:
    name = "layers.0.gate_up_proj.weight"
    weight = source.read_parameter(name)
    factors = np.exp2(np.arange(len(weight)) % 5).astype(np.float32)
    plan, path = make_plan(source, "fp32"), tmp_path / "data"
    options = WriteOptions(
        "rtn", is_checked=False, threads=1, folding=Folding(rows={name: factors})
    )
    write_weights(source.checkpoint, plan, path, options, lambda _: None)
    found = read_segment(path, plan.tensors[name].segments[0])
    np.testing.assert_array_equal(found, weight * factors[:, None])


def test_tables_go_to_their_own_places(
    source: SourceModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them are in the file when the disk is asked to keep it."""
    plan, path = make_plan(source, "fp16"), tmp_path / "data"
    options = WriteOptions("rtn", is_checked=False, threads=1)
    write_weights(source.checkpoint, plan, path, options, lambda _: None)
    before, synced = path.read_bytes(), list[bytes]()
    tables = stored_tables(source.config)
    monkeypatch.setattr(os, "fsync", lambda _: synced.append(path.read_bytes()))
    write_tables(plan, tables, path, is_checked=True)
    assert synced == [path.read_bytes()]
    for name, table in tables.items():
        (segment,) = plan.tensors[name].segments
        np.testing.assert_array_equal(read_segment(path, segment), table.astype(np.float16))
    first = min(plan.tensors[name].segments[0].offset_bytes for name in tables)
    assert path.read_bytes()[:first] == before[:first]
    assert path.stat().st_size == plan.size_bytes


@pytest.mark.parametrize("runs", [1, 3])
def test_a_sample_is_some_runs_of_the_largest_matrix(
    source: SourceModel, tmp_path: Path, runs: int
) -> None:
    plan, path = make_plan(source, "fp32"), tmp_path / "sample"
    options = WriteOptions("rtn", is_checked=True, threads=2)
    layer = [one for name, one in plan.tensors.items() if name.startswith("layers.0.")]
    largest = max(layer, key=lambda one: np.prod(one.shape))
    for _ in range(2):  # the second time into the file that is there
        written = write_sample(source.checkpoint, plan, path, options, runs)
        rows = written // largest.shape[1]
        assert written == runs * CHUNK_ROWS * 64
    (segment,) = largest.segments
    weight = source.read_parameter(largest.name)
    np.testing.assert_array_equal(read_segment(path, segment)[:rows], weight[:rows])
    assert not read_segment(path, segment)[rows:].any()


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (3, 3), (64, 4)])
def test_at_most_four_threads_write(
    monkeypatch: pytest.MonkeyPatch, cores: int, threads: int
) -> None:
    monkeypatch.setattr(writer_module, "count_usable_cores", lambda: cores)
    assert writer_module.count_threads() == threads


@pytest.mark.parametrize("part", range(3))
def test_one_wrong_bit_is_found_in_every_part(
    source: SourceModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    """In the codes, the scales and the zero points, in the last row of the matrix."""
    plan = make_plan(source, "fp32")
    wrong = plan.tensors[QKV].segments[part]
    write_rows = DataFile.write_rows

    def write_wrongly(self: DataFile, segment: Segment, first_row: int, rows: np.ndarray) -> None:
        if segment == wrong and first_row + len(rows) == segment.shape[0]:
            rows = rows.copy()
            rows.view(np.uint8)[-1, -1] ^= 1
        write_rows(self, segment, first_row, rows)

    monkeypatch.setattr(DataFile, "write_rows", write_wrongly)
    options = WriteOptions("rtn", is_checked=True, threads=1)
    with pytest.raises(VerificationError, match=f"{wrong.name}: the file does not hold"):
        write_weights(source.checkpoint, plan, tmp_path / "data", options, lambda _: None)


def test_a_disk_that_takes_little_at_once_gets_everything(tmp_path: Path) -> None:
    """The system may write fewer bytes than it is asked to."""
    segment = Segment("a", "fp32", (4, 3), offset_bytes=8)
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    file = DataFile(tmp_path / "data", 8 + 48, is_kept=False)
    file._file = _Slow(file._file)  # type: ignore[assignment]
    file.write_rows(segment, 1, rows)
    np.testing.assert_array_equal(file.read_rows(segment, 1, 2), rows)
    assert not file.read_rows(segment, 0, 1).any() and not file.read_rows(segment, 3, 1).any()
    file.close()


class _Slow:
    """A file that takes five bytes at a time, and sometimes none."""

    def __init__(self, file: RawIOBase) -> None:
        self._file, self._calls = file, 0

    def write(self, view: memoryview) -> int | None:
        self._calls += 1
        return self._file.write(view[:5]) if self._calls % 3 else None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
