"""Every format: what the kernels would compute with is the checkpoint's own weight, bit for bit."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from glm_export.checkpoint.checkpoint import Checkpoint, open_checkpoint
from glm_export.checkpoint.prequantized import QuantizedLinear, find_format
from glm_quantize import FloatArray, QuantizedRows, dequantize
from support.broken_checkpoints import RawTensor, write_json, write_safetensors
from support.prequantized_tensors import (
    AWQ,
    COMPRESSED,
    GPTQ,
    Recipe,
    describe,
    draw_quantized,
    integers,
    pack,
    store,
    words,
)

PREFIX = "model.layers.0.mlp.down_proj"
GROUP_SIZES = (32, 64, 128, -1)
FLAGS = (True, False)


def list_recipes() -> list[Recipe]:
    recipes = [
        Recipe(GPTQ, bits, size, is_symmetric, has_order, version)
        for bits, size, is_symmetric, has_order, version in itertools.product(
            (4, 8), GROUP_SIZES, FLAGS, FLAGS, ("gptq", "gptq_v2")
        )
    ]
    recipes += [Recipe(AWQ, 4, *rest) for rest in itertools.product(GROUP_SIZES, FLAGS)]
    recipes += [
        Recipe(COMPRESSED, *rest)
        for rest in itertools.product((4, 8), GROUP_SIZES, FLAGS, FLAGS)
        if rest[1] != -1 or not rest[3]  # one group has no order
    ]
    return recipes


def write_linear(folder: Path, tensors: dict[str, RawTensor], recipe: Recipe) -> Checkpoint:
    folder.mkdir(exist_ok=True)
    write_json(folder / "config.json", {"quantization_config": describe(recipe)})
    write_safetensors(folder / "model.safetensors", tensors)
    return open_checkpoint(folder)


def open_linear(checkpoint: Checkpoint, shape: tuple[int, int]) -> QuantizedLinear:
    stored_format = find_format(checkpoint.config)
    assert stored_format is not None and stored_format.is_quantized(checkpoint, PREFIX)
    return stored_format.open_linear(checkpoint, PREFIX, shape)


def undo_order(linear: QuantizedLinear, rows: QuantizedRows) -> FloatArray:
    """The weight with its inputs where the model has them."""
    weight = dequantize(rows)
    if linear.layout.order is None:
        return weight
    result = np.empty_like(weight)
    result[:, linear.layout.order] = weight
    return result


def assert_exact(folder: Path, shape: tuple[int, int], recipe: Recipe) -> QuantizedLinear:
    drawn = draw_quantized(PREFIX, shape, recipe)
    linear = open_linear(write_linear(folder, store(PREFIX, drawn, recipe), recipe), shape)
    expected = drawn.dequantize()
    for start, stop in ((0, shape[0]), (3, 13), (8, 9)):
        found = undo_order(linear, linear.read_rows(start, stop))
        np.testing.assert_array_equal(found.view(np.uint32), expected[start:stop].view(np.uint32))
    return linear


@pytest.mark.parametrize("recipe", list_recipes(), ids=lambda recipe: recipe.name)
def test_weights_are_those_of_the_definition(tmp_path: Path, recipe: Recipe) -> None:
    """Rows are asked for in whole and out of the middle, across words."""
    rows = 24 if recipe.method == AWQ else 21  # others may leave their last word half empty
    linear = assert_exact(tmp_path, (rows, 256), recipe)
    scheme = linear.scheme
    size = 256 if recipe.group_size == -1 else recipe.group_size
    assert (scheme.bits, scheme.is_symmetric) == (recipe.bits, recipe.is_symmetric)
    assert scheme.block_size == size
    assert (linear.layout.order is not None) == (recipe.has_order and recipe.group_size != -1)
    expected_zeros = None if recipe.is_symmetric else (rows, 256 // size)
    zeros = linear.read_rows(0, rows).zero_points
    assert (None if zeros is None else zeros.shape) == expected_zeros


@pytest.mark.parametrize("method", [GPTQ, AWQ, COMPRESSED])
@pytest.mark.parametrize(
    ("group_size", "inputs", "block_size"),
    [
        (512, 1024, 256),
        (1024, 512, 256),
        (-1, 96, 32),
        (96, 192, 32),
        (64, 96, 32),  # the last group has half as many inputs
        (256, 192, 64),
    ],
)
def test_groups_that_are_no_block(
    tmp_path: Path, method: str, group_size: int, inputs: int, block_size: int
) -> None:
    """A larger group is several blocks of the same scale and zero point."""
    linear = assert_exact(tmp_path, (16, inputs), Recipe(method, group_size=group_size))
    assert linear.scheme.block_size == block_size


def test_an_order_with_a_smaller_last_group(tmp_path: Path) -> None:
    recipe = Recipe(GPTQ, group_size=64, has_order=True)
    assert assert_exact(tmp_path, (16, 96), recipe).layout.order is not None


@pytest.mark.parametrize("method", [GPTQ, AWQ, COMPRESSED])
@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32"])
def test_scales_of_any_float(tmp_path: Path, method: str, dtype: str) -> None:
    assert_exact(tmp_path, (16, 64), Recipe(method, scale_dtype=dtype))


@pytest.mark.parametrize("method", [GPTQ, AWQ, COMPRESSED])
def test_every_chunk_of_a_wide_matrix(
    tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stored rows of more than 8 KB are read in pieces; chunks cover every row once."""
    recipe = Recipe(method, has_order=method == GPTQ)
    shape = (4160, 64)
    drawn = draw_quantized(PREFIX, shape, recipe)
    linear = open_linear(write_linear(tmp_path, store(PREFIX, drawn, recipe), recipe), shape)
    monkeypatch.setattr("glm_export.checkpoint.prequantized.description._CHUNK_ELEMENTS", 64 * 1000)
    chunks = list(linear.iterate_chunks())
    assert [row for start, stop in chunks for row in range(start, stop)] == list(range(4160))
    assert [start for start, _ in chunks] == [0, 1000, 2000, 3000, 4000]
    found = [undo_order(linear, linear.read_rows(start, stop)) for start, stop in chunks]
    np.testing.assert_array_equal(np.concatenate(found), drawn.dequantize())


@pytest.mark.parametrize("method", [GPTQ, AWQ, COMPRESSED])
def test_all_codes_in_all_places(tmp_path: Path, method: str) -> None:
    """Each of eight places of a word with each of sixteen codes, beside opposite ones."""
    recipe = Recipe(method, is_symmetric=True)
    drawn = draw_quantized(PREFIX, (128, 128), recipe)
    codes = np.full((128, 128), 15, dtype=np.int64)
    for place, code in itertools.product(range(8), range(16)):
        codes[8 * code + place, place::8] = code
        codes[place::8, 8 * code + place] = 15 - code
    drawn = replace(drawn, codes=codes)
    checkpoint = write_linear(tmp_path, store(PREFIX, drawn, recipe), recipe)
    rows = open_linear(checkpoint, (128, 128)).read_rows(0, 128)
    np.testing.assert_array_equal(rows.codes, codes)


def test_a_word_written_by_hand(tmp_path: Path) -> None:
    """The formats' own examples: which hexadecimal digit is which input or output."""
    assert pack([1, 2, 3, 4, 5, 6, 7, 8], 4) == [0x87654321]
    assert pack([1, 2, 3, 4, 5, 6, 7, 8], 4, (0, 2, 4, 6, 1, 3, 5, 7)) == [0x86427531]
    assert pack([1, 2, 254, 255, 7], 8) == [0xFFFE0201, 0x00000007]
    recipe = Recipe(AWQ)
    scales = RawTensor("F32", (1, 8), np.ones(8, "<f4").tobytes())
    zero = 0x11111111
    tensors = {
        f"{PREFIX}.qweight": words([[0x86427531]] * 32),
        f"{PREFIX}.qzeros": words([[zero]]),
        f"{PREFIX}.scales": scales,
    }
    rows = open_linear(write_linear(tmp_path, tensors, recipe), (8, 32)).read_rows(0, 8)
    assert dequantize(rows)[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]


def test_claimed_symmetry_that_is_none(tmp_path: Path) -> None:
    """Zero points are believed rather than `sym`: with one that differs all are kept."""
    recipe = Recipe(GPTQ, is_symmetric=True)
    drawn = draw_quantized(PREFIX, (16, 64), recipe)
    zeros = drawn.zeros.copy()
    zeros[5, 1] = 7
    drawn = replace(drawn, zeros=zeros)
    linear = open_linear(write_linear(tmp_path, store(PREFIX, drawn, recipe), recipe), (16, 64))
    assert not linear.scheme.is_symmetric
    np.testing.assert_array_equal(dequantize(linear.read_rows(0, 16)), drawn.dequantize())


@pytest.mark.parametrize("is_there", [True, False])
def test_gptq_without_an_order_needs_no_indices(tmp_path: Path, is_there: bool) -> None:
    recipe = Recipe(GPTQ)
    drawn = draw_quantized(PREFIX, (16, 64), recipe)
    tensors = store(PREFIX, drawn, recipe)
    if not is_there:
        del tensors[f"{PREFIX}.g_idx"]
    linear = open_linear(write_linear(tmp_path, tensors, recipe), (16, 64))
    assert (f"{PREFIX}.g_idx" in {part.name for part in linear.parts}) == is_there
    np.testing.assert_array_equal(dequantize(linear.read_rows(0, 16)), drawn.dequantize())


def test_an_order_counts_whatever_the_config_says(tmp_path: Path) -> None:
    """AutoGPTQ's kernels follow g_idx; `desc_act` only says how it came about."""
    recipe = Recipe(GPTQ, has_order=True)
    drawn = draw_quantized(PREFIX, (16, 64), recipe)
    tensors = store(PREFIX, drawn, recipe)
    tensors[f"{PREFIX}.g_idx"] = integers(drawn.group_of_input, "I64")
    checkpoint = write_linear(tmp_path, tensors, replace(recipe, has_order=False))
    linear = open_linear(checkpoint, (16, 64))
    found = undo_order(linear, linear.read_rows(0, 16))
    np.testing.assert_array_equal(found, drawn.dequantize())
