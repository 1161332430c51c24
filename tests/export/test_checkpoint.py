"""Checkpoints as files: what is read, and that a broken one is named, whatever the damage."""

import json
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from glm_export.checkpoint.checkpoint import Checkpoint, open_checkpoint
from glm_export.checkpoint.file_states import read_states
from glm_export.errors import CheckpointError
from support.broken_checkpoints import (
    WEIGHTS,
    RawTensor,
    build_header,
    encode_header,
    write_safetensors,
    write_small,
)
from support.property_tests import examples
from support.refusals import assert_sentence


def refuse(folder: Path, *words: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder)
    assert_sentence(str(caught.value), *words)


def refuse_header(tmp_path: Path, header: object, data_bytes: int, *words: str) -> None:
    folder = write_small(tmp_path / "checkpoint")
    (folder / WEIGHTS).write_bytes(encode_header(header) + bytes(data_bytes))
    refuse(folder, WEIGHTS, *words)


def entry(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


# --- what is read


def test_rows_are_those_that_safetensors_wrote(tmp_path: Path) -> None:
    """The library's own writer is the judge; halves convert exactly."""
    folder = write_small(tmp_path / "checkpoint")
    generator = np.random.default_rng(0)
    full = generator.normal(size=(7, 5)).astype(np.float32)
    half = full.astype(np.float16)
    save_file({"full": full, "half": half, "row": full[0]}, folder / WEIGHTS, {"format": "pt"})
    checkpoint = open_checkpoint(folder)
    np.testing.assert_array_equal(checkpoint.read("full"), full)
    np.testing.assert_array_equal(checkpoint.read("half"), half.astype(np.float32))
    np.testing.assert_array_equal(checkpoint.read("row"), full[0])
    np.testing.assert_array_equal(checkpoint.read_rows("full", 2, 4), full[2:4])


def test_bfloat16_is_the_upper_half_of_float32(tmp_path: Path) -> None:
    """All 65,536 patterns; 1.0 is 0x3F80 by definition."""
    folder = write_small(tmp_path / "checkpoint")
    patterns = np.arange(1 << 16, dtype="<u2")
    tensor = RawTensor("BF16", (1 << 16,), patterns.tobytes())
    write_safetensors(folder / WEIGHTS, {"x": tensor})
    found = open_checkpoint(folder).read("x")
    assert found[0x3F80] == 1.0
    np.testing.assert_array_equal(found.view(np.uint32), patterns.astype(np.uint32) << 16)


def test_chunks_cover_every_row_once(tmp_path: Path) -> None:
    folder = write_small(tmp_path / "checkpoint")
    data = bytes(4 * 3000 * 1000)
    write_safetensors(folder / WEIGHTS, {"x": RawTensor("F32", (3000, 1000), data)})
    chunks = list(open_checkpoint(folder).iterate_chunks("x"))
    assert len(chunks) > 1
    assert [row for start, stop in chunks for row in range(start, stop)] == list(range(3000))


def test_a_single_number_and_an_empty_tensor_are_read(tmp_path: Path) -> None:
    """Scales of whole tensors have no dimensions; the file was refused as a damaged one."""
    folder = write_small(tmp_path / "checkpoint")
    values = {"number": np.array(3.5, np.float32), "empty": np.zeros((0, 4), np.float32)}
    values["row"] = np.ones(3, np.float32)
    save_file(values, folder / WEIGHTS)
    checkpoint = open_checkpoint(folder)
    for name, expected in values.items():
        np.testing.assert_array_equal(checkpoint.read(name), expected, strict=True)


# --- the folder


def test_no_such_folder(tmp_path: Path) -> None:
    refuse(tmp_path / "none", str(tmp_path / "none"), "is not a folder", "give the checkpoint's")


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    path = write_small(tmp_path / "checkpoint") / WEIGHTS
    refuse(path, str(path), f"is not a folder; give the checkpoint's folder {path.parent}")


def test_a_path_that_the_system_refuses(tmp_path: Path) -> None:
    refuse(tmp_path / ("x" * 5000), "cannot be read (File name too long)", "check the path")


def test_no_config(tmp_path: Path) -> None:
    folder = write_small(tmp_path / "checkpoint")
    (folder / "config.json").unlink()
    refuse(folder, f"there is no config.json in {folder}", "give a Hugging Face folder")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"<html>", b"\xff\xfe{}", b"[" * 100_000],
    ids=["empty", "cut", "web page", "UTF-16", "deep"],
)
def test_config_that_is_not_json(tmp_path: Path, content: bytes) -> None:
    folder = write_small(tmp_path / "checkpoint")
    (folder / "config.json").write_bytes(content)
    refuse(folder, "config.json is not readable JSON (", "download it again")


@pytest.mark.parametrize("content", ["[]", "null", "4", '"x"'])
def test_config_that_is_no_object(tmp_path: Path, content: str) -> None:
    folder = write_small(tmp_path / "checkpoint")
    (folder / "config.json").write_text(content)
    refuse(folder, "config.json does not hold a JSON object; download it again")


def test_no_weights(tmp_path: Path) -> None:
    folder = write_small(tmp_path / "checkpoint")
    (folder / WEIGHTS).rename(folder / "training_args.bin")
    refuse(
        folder,
        f"there is no *.safetensors and no pytorch_model*.bin in {folder}",
        "and the weights",
    )


def test_a_link_that_leads_nowhere(tmp_path: Path) -> None:
    """A hub cache whose blobs were cleaned looks like this."""
    folder = write_small(tmp_path / "checkpoint")
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).symlink_to("../blobs/gone")
    refuse(folder, WEIGHTS, "cannot be read (No such file or directory)", "download it again")


def test_weights_that_are_a_folder(tmp_path: Path) -> None:
    folder = write_small(tmp_path / "checkpoint")
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).mkdir()
    (folder / WEIGHTS / "padding").write_bytes(bytes(10_000))
    refuse(folder, WEIGHTS, "cannot be read (Is a directory)")


# --- the header


@pytest.mark.parametrize("kept", [0, 5, 8, 9, 500])
def test_cut_inside_length_or_header(tmp_path: Path, kept: int) -> None:
    folder = write_small(tmp_path / "checkpoint")
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:kept])
    refuse(folder, f"{WEIGHTS} has {kept} bytes and no whole safetensors header", "download it")


@pytest.mark.parametrize("lost", [1, 4, 10_000, 200_000])
def test_cut_inside_the_data(tmp_path: Path, lost: int) -> None:
    folder = write_small(tmp_path / "checkpoint")
    path = folder / WEIGHTS
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-lost])
    refuse(folder, f"{WEIGHTS} has {size - lost} bytes but", "the file is truncated; download")


def test_bytes_after_the_last_tensor(tmp_path: Path) -> None:
    folder = write_small(tmp_path / "checkpoint")
    path = folder / WEIGHTS
    size = path.stat().st_size
    path.write_bytes(path.read_bytes() + b"x")
    refuse(folder, f"{WEIGHTS} has {size + 1} bytes but its tensors end at byte {size}")


@pytest.mark.parametrize("length", [0, 1, 100_000_001, 1 << 40, (1 << 64) - 1])
def test_absurd_header_length(tmp_path: Path, length: int) -> None:
    folder = write_small(tmp_path / "checkpoint")
    path = folder / WEIGHTS
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
    refuse(folder, "no whole safetensors header", "download it again")


def test_a_git_lfs_pointer(tmp_path: Path) -> None:
    """What `git clone` leaves without git-lfs: read as a length, its first bytes are absurd."""
    folder = write_small(tmp_path / "checkpoint")
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    (folder / WEIGHTS).write_text(pointer)
    refuse(folder, WEIGHTS, "git-lfs pointer", "download it again")


@pytest.mark.parametrize(
    ("header", "word"),
    [
        ([], "not a JSON object"),
        (None, "not a JSON object"),
        ({"x": []}, "x has no dtype, shape and data_offsets"),
        ({"x": {"dtype": "F32", "shape": [1]}}, "x has no dtype, shape and data_offsets"),
        ({"x": entry([1], 0, 4) | {"shape": 1}}, "shape is not a list of whole numbers"),
        ({"x": entry([1], 0, 4) | {"shape": [1.0]}}, "shape is not a list of whole numbers"),
        ({"x": entry([1], 0, 4) | {"shape": [True]}}, "shape is not a list of whole numbers"),
        ({"x": entry([1], 0, 4) | {"shape": [float("inf")]}}, "shape is not a list"),
        ({"x": entry([1], -4, 0)}, "data_offsets is not a list of whole numbers"),
        ({"x": entry([1], 0, 4) | {"data_offsets": [0]}}, "invalid safetensors header"),
        ({"x": entry([1], 0, 4) | {"data_offsets": [0, 4, 8]}}, "invalid safetensors header"),
        ({"x": entry([2], 0, 4)}, "x [2] of F32 does not fill bytes 0-4"),
        ({"x": entry([], 0, 8)}, "x [] of F32 does not fill bytes 0-8"),
        ({"x": entry([0], 0, 4)}, "x [0] of F32 does not fill bytes 0-4"),
        ({"x": entry([1], 4, 0)}, "x [1] of F32 does not fill bytes 4-0"),
        ({"x": entry([1 << 32, 1 << 32, 4], 0, 4)}, "does not fill bytes 0-4"),
        ({"x": entry([10**30], 0, 4)}, "does not fill bytes 0-4"),
        ({"x": entry([1], 0, 4), "y": entry([1], 0, 4)}, "tensors overlap or leave a hole"),
        ({"x": entry([2], 0, 8), "y": entry([1], 4, 8)}, "tensors overlap or leave a hole"),
        ({"x": entry([1], 4, 8)}, "x starts at byte"),
        ({"x": entry([1], 0, 1, "F4")}, "x has dtype F4; supported are F32, F16, BF16"),
        ({"x": entry([1], 0, 4) | {"dtype": ["F32"]}}, "x has dtype ['F32']; supported are"),
    ],
)
def test_header_that_contradicts_itself(tmp_path: Path, header: object, word: str) -> None:
    refuse_header(tmp_path, header, 8, word)


@pytest.mark.parametrize("text", [b"nonsense", b"[" * 100_000, b"\xff\xff", b'{"x": 1e999}'])
def test_header_that_is_not_json(tmp_path: Path, text: bytes) -> None:
    folder = write_small(tmp_path / "checkpoint")
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text)
    refuse(folder, f"{WEIGHTS} has an invalid safetensors header (", "download it again")


# --- anything


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=200))
def test_random_bytes_are_never_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    open_or_refuse(tmp_path_factory, content)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)
SIZES = st.lists(st.integers(-1, 9) | st.integers() | st.floats(), max_size=3)
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "BF16", "I8"]) | JSON_VALUES,
        "shape": SIZES | JSON_VALUES,
        "data_offsets": SIZES | JSON_VALUES,
    }
)


@examples(250)
@given(
    header=st.dictionaries(st.text(max_size=3), ENTRIES | JSON_VALUES, max_size=4) | JSON_VALUES,
    data=st.binary(max_size=40),
)
def test_random_headers_are_never_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, header: object, data: bytes
) -> None:
    open_or_refuse(tmp_path_factory, encode_header(header) + data)


@examples(200)
@given(
    place=st.integers(0, 10_000),
    replacement=st.binary(min_size=1, max_size=4),
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=3),
)
def test_a_damaged_header_is_refused_or_as_good_as_safetensors_says(
    tmp_path_factory: pytest.TempPathFactory, place: int, replacement: bytes, sizes: list[int]
) -> None:
    """What we read, the reference implementation reads too, with the same values."""
    tensors = {
        f"t{i}": RawTensor("F32", (size, 2), bytes(range(8 * size))) for i, size in enumerate(sizes)
    }
    content = encode_header(build_header(tensors))
    place %= len(content)
    content = content[:place] + replacement + content[place + len(replacement) :]
    content += b"".join(tensor.data for tensor in tensors.values())
    checkpoint = open_or_refuse(tmp_path_factory, content)
    if checkpoint is None:
        return
    expected = load_file(checkpoint.folder / WEIGHTS)
    assert set(expected) == set(checkpoint.tensors)
    for name, values in expected.items():
        if checkpoint.tensors[name].is_float:
            np.testing.assert_array_equal(checkpoint.read(name), values.astype(np.float32))


def open_or_refuse(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> Checkpoint | None:
    """Open a folder with these weights and read every tensor; None if a CheckpointError says no."""
    folder = tmp_path_factory.getbasetemp() / "random"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({}))
    (folder / WEIGHTS).write_bytes(content)
    try:
        checkpoint = open_checkpoint(folder)
    except CheckpointError:
        return None
    for name, tensor in checkpoint.tensors.items():
        if tensor.is_float:
            checkpoint.read(name)
    return checkpoint


# --- while it is read


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    folder = write_small(tmp_path / "checkpoint")
    checkpoint = open_checkpoint(folder)
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(CheckpointError) as caught:
        checkpoint.read("lm_head.weight")
    assert_sentence(str(caught.value), f"{WEIGHTS} was changed while the checkpoint was read")
    checkpoint = replace(checkpoint, states=read_states(folder))  # it shrinks after it is opened
    with pytest.raises(CheckpointError) as caught:
        checkpoint.read("lm_head.weight")
    assert_sentence(str(caught.value), "lm_head.weight cannot be read (the file ends too early)")


def test_a_file_that_vanishes_while_it_is_read(tmp_path: Path) -> None:
    folder = write_small(tmp_path / "checkpoint")
    checkpoint = open_checkpoint(folder)
    (folder / WEIGHTS).unlink()
    with pytest.raises(CheckpointError) as caught:
        checkpoint.read("lm_head.weight")
    assert_sentence(
        str(caught.value), f"{WEIGHTS}: lm_head.weight cannot be read", "check the disk"
    )
