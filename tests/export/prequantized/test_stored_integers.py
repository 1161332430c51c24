"""Reading of integers and of columns, against numpy slices; other dtypes stay refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from glm_export.checkpoint.checkpoint import Checkpoint, open_checkpoint
from glm_export.checkpoint.file_states import read_states
from glm_export.errors import CheckpointError
from support.broken_checkpoints import RawTensor, write_json, write_safetensors
from support.refusals import assert_sentence


def write(folder: Path, tensors: dict[str, RawTensor]) -> Checkpoint:
    write_json(folder / "config.json", {})
    write_safetensors(folder / "model.safetensors", tensors)
    return open_checkpoint(folder)


@pytest.mark.parametrize("columns", [7, 2048, 2049, 5000])  # of 4 bytes: short rows and long ones
def test_columns_are_those_of_numpy(tmp_path: Path, columns: int) -> None:
    values = np.random.default_rng(0).integers(0, 1 << 32, (130, columns), dtype=np.uint32)
    halves = (np.arange(130 * columns).reshape(130, columns) % 997).astype(np.float16)
    tensors = {
        "words": RawTensor("I32", values.shape, values.astype("<u4").tobytes()),
        "halves": RawTensor("F16", halves.shape, halves.astype("<f2").tobytes()),
    }
    checkpoint = write(tmp_path, tensors)
    for start, stop in ((0, columns), (3, 4), (2, columns - 1)):
        found = checkpoint.read_raw_columns("words", start, stop).view("<u4")
        np.testing.assert_array_equal(found, values[:, start:stop])
        columns_found = checkpoint.read_columns("halves", start, stop)
        assert columns_found.dtype == np.float32
        np.testing.assert_array_equal(columns_found, halves[:, start:stop])


def test_columns_of_more_than_one_band(tmp_path: Path) -> None:
    """Two megabytes of short rows are read a megabyte at a time."""
    values = np.arange(2048 * 300, dtype="<u4").reshape(2048, 300)
    tensor = RawTensor("I32", values.shape, values.tobytes())
    found = write(tmp_path, {"x": tensor}).read_raw_columns("x", 5, 250).view("<u4")
    np.testing.assert_array_equal(found, values[:, 5:250])


@pytest.mark.parametrize(("dtype", "code"), [("I32", "<i4"), ("I64", "<i8")])
def test_integers(tmp_path: Path, dtype: str, code: str) -> None:
    values = np.array([0, 1, -1, 2**31 - 1, -(2**31)])
    checkpoint = write(tmp_path, {"x": RawTensor(dtype, (5,), values.astype(code).tobytes())})
    found = checkpoint.read_integers("x")
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize("has_preadv", [True, False])
def test_systems_without_preadv_read_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_preadv: bool
) -> None:
    if not has_preadv:
        monkeypatch.delattr("os.preadv", raising=False)
    values = np.arange(12, dtype="<f4").reshape(3, 4)
    checkpoint = write(tmp_path, {"x": RawTensor("F32", (3, 4), values.tobytes())})
    np.testing.assert_array_equal(checkpoint.read_rows("x", 1, 3), values[1:3])


@pytest.mark.parametrize("dtype", ["I64", "I32", "I16", "I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2"])
def test_what_is_no_weight_is_not_read_as_one(tmp_path: Path, dtype: str) -> None:
    """The header may hold it, for example beside the weights, but no float parameter may."""
    size = {"I64": 8, "I32": 4, "I16": 2}.get(dtype, 1)
    tensors = {"x": RawTensor(dtype, (2, 3), bytes(6 * size))}
    words = (f"x has dtype {dtype}; supported are F32, F16, BF16", "not quantized")
    checkpoint = write(tmp_path, tensors)
    for read in (checkpoint.read_rows, checkpoint.read_columns):
        with pytest.raises(CheckpointError) as caught:
            read("x", 0, 1)
        assert_sentence(str(caught.value), *words)


@pytest.mark.parametrize("dtype", ["F4", "I33"])
def test_dtypes_of_no_format(tmp_path: Path, dtype: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        write(tmp_path, {"x": RawTensor(dtype, (4,), bytes(4))})
    assert_sentence(str(caught.value), f"x has dtype {dtype}; supported are F32, F16, BF16")


def test_columns_of_a_file_that_shrinks(tmp_path: Path) -> None:
    tensor = RawTensor("I32", (4, 3000), bytes(4 * 3000 * 4))
    checkpoint = write(tmp_path, {"x": tensor})
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    checkpoint = replace(checkpoint, states=read_states(tmp_path))  # it shrinks after it is opened
    assert checkpoint.read_raw_columns("x", 0, 8).shape == (4, 32)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.read_raw_columns("x", 2990, 3000)
    assert_sentence(str(caught.value), "x cannot be read (the file ends too early)", "check the")
