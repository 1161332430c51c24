"""The plan of the data file: types, shapes and places of every tensor, worked out by hand."""

import numpy as np
import pytest

from glm_export.checkpoint.prequantized import QuantizedMatrix
from glm_export.errors import OptionsError
from glm_export.model.architectures import DecoderConfig, ParameterSource
from glm_export.plan.plan import ExportPlan, Segment, build_plan, is_wide, measure_bytes
from glm_quantize import Scheme

ASYMMETRIC, SYMMETRIC = Scheme(4, 32, is_symmetric=False), Scheme(8, 64, is_symmetric=True)
PAGE = 4096
MEGABYTE = 1 << 20


def make_config(context_length: int = 100) -> DecoderConfig:
    return DecoderConfig(
        1, 64, 96, 2, 1, 32, 16, 1e4, 1e-5, 50, context_length, True, True, is_tied=False
    )


def source(*shapes: tuple[int, ...]) -> ParameterSource:
    return ParameterSource(tuple((f"tensor{i}", shape) for i, shape in enumerate(shapes)))


def plan_one(name: str, shape: tuple[int, ...], scheme: Scheme | None, dtype: str) -> ExportPlan:
    return build_plan(make_config(), {name: source(shape)}, {name: scheme}, dtype)


def describe(segments: tuple[Segment, ...]) -> list[tuple[str, str, tuple[int, ...]]]:
    return [(segment.name, segment.dtype, segment.shape) for segment in segments]


def test_the_parts_of_a_quantized_matrix() -> None:
    """Three blocks of zero points with 4 bits take 12 bits, so two bytes."""
    tensor = plan_one("a.qkv_proj.weight", (10, 96), ASYMMETRIC, "fp16").tensors[
        "a.qkv_proj.weight"
    ]
    assert describe(tensor.segments) == [
        ("a.qkv_proj.weight.packed", "uint8", (10, 48)),
        ("a.qkv_proj.weight.scales", "fp16", (10, 3)),
        ("a.qkv_proj.weight.zero_points", "uint8", (10, 2)),
    ]
    assert tensor.size_bytes == 10 * (48 + 2 * 3 + 2)
    assert tensor.num_weights == 960
    assert tensor.scheme_name == "int4-b32-asym"
    assert tensor.all_segments == tensor.segments


def test_32_zero_points_of_4_bits_take_16_bytes() -> None:
    tensor = plan_one("a.weight", (10, 32 * 32), ASYMMETRIC, "fp32").tensors["a.weight"]
    assert tensor.segments[2].shape == (10, 16)


def test_a_symmetric_matrix_has_no_zero_points() -> None:
    tensor = plan_one("a.weight", (10, 128), SYMMETRIC, "fp32").tensors["a.weight"]
    assert describe(tensor.segments) == [
        ("a.weight.packed", "uint8", (10, 128)),
        ("a.weight.scales", "fp32", (10, 2)),
    ]


@pytest.mark.parametrize("module", ["o_proj", "down_proj", "input_layernorm", "norm"])
def test_what_float16_cannot_hold_is_float32(module: str) -> None:
    """The scales of a wide matrix and the weights of a norm; a float matrix stays float16."""
    name = f"layers.0.{module}.weight"
    assert is_wide(name) and not is_wide("norm.qkv_proj.weight")
    wide = plan_one(name, (10, 64), SYMMETRIC, "fp16")
    assert [one.dtype for one in wide.tensors[name].segments] == ["uint8", "fp32"]
    assert wide.wide_dtype == "fp32"
    assert plan_one(name, (64,), None, "fp16").tensors[name].scheme_name == "fp32"
    assert plan_one(name, (10, 64), None, "fp16").tensors[name].scheme_name == "fp16"
    assert plan_one("a.q_norm_bias", (64,), None, "fp16").tensors["a.q_norm_bias"].scheme_name == (
        "fp16"
    )


@pytest.mark.parametrize(
    ("rows", "place"),
    [(MEGABYTE // 256 - 1, 64), (MEGABYTE // 256, PAGE), (MEGABYTE // 256 + 1, PAGE)],
)
def test_large_tensors_start_on_a_page_and_small_ones_on_a_cache_line(
    rows: int, place: int
) -> None:
    """One megabyte is large. A host maps whole pages only."""
    parameters = {"first": source((1,)), "large": source((rows, 64)), "last": source((3,))}
    plan = build_plan(make_config(), parameters, {}, "fp32")
    offsets = [tensor.segments[0].offset_bytes for tensor in plan.tensors.values()]
    end = place + rows * 256
    last = -(-end // 64) * 64
    assert offsets[:3] == [0, place, last]
    assert offsets[3:] == [last + 64, last + 64 + 100 * 8 * 4]
    assert plan.size_bytes == offsets[-1] + 100 * 8 * 4


def test_a_segment_that_ends_on_a_cache_line_is_followed_without_a_gap() -> None:
    plan = build_plan(make_config(), {"a": source((16,)), "b": source((16,))}, {}, "fp32")
    assert [plan.tensors[name].segments[0].offset_bytes for name in "ab"] == [0, 64]


def test_the_rows_of_several_tensors_are_one_parameter() -> None:
    plan = build_plan(make_config(), {"a": source((8, 32), (4, 32))}, {"a": ASYMMETRIC}, "fp32")
    tensor = plan.tensors["a"]
    assert tensor.shape == (12, 32) and tensor.segments[0].row_bytes == 16
    assert tensor.segments[0].size_bytes == 12 * 16


def test_bits_per_weight_count_scales_but_no_table() -> None:
    """4 bits, a float32 scale for 32 weights, and 1 of 2 half bytes used for the zero point."""
    plan = plan_one("a.weight", (10, 32), ASYMMETRIC, "fp32")
    assert plan.parameters == 320
    assert plan.bits_per_weight == 4 + 32 / 32 + 8 / 32
    assert {"cos", "sin"} < set(plan.tensors)


@pytest.mark.parametrize(
    ("context_length", "dtype", "expected"),
    [
        (131_072, "fp16", {"cos": (131_072, 8), "sin": (131_072, 8)}),
        (131_073, "fp32", {"cos_coarse": (129, 8), "cos_fine": (1024, 8)}),
        (131_073, "fp16", {"cos_coarse": (129, 8), "cos_fine": (1024, 8)}),
    ],
)
def test_the_tables_of_a_long_context_are_float32(
    context_length: int, dtype: str, expected: dict[str, tuple[int, int]]
) -> None:
    plan = build_plan(make_config(context_length), {}, {}, dtype)
    for name, shape in expected.items():
        tensor = plan.tensors[name]
        stored = dtype if "cos" in expected and "sin" in expected else "fp32"
        assert describe(tensor.segments) == [(name, stored, shape)]
        assert tensor.source is None and tensor.scheme is None
    assert plan.parameters == 0


def test_a_matrix_of_the_checkpoint_keeps_its_scheme_and_its_order() -> None:
    order = np.arange(64)[::-1].copy()
    matrix = QuantizedMatrix((), SYMMETRIC, order, frozenset())
    plan = build_plan(
        make_config(), {"a": source((4, 64))}, {"a": ASYMMETRIC}, "fp32", {"a": matrix}
    )
    tensor = plan.tensors["a"]
    assert tensor.scheme is SYMMETRIC and tensor.matrix is matrix
    assert tensor.order == Segment("a.order", "int32", (64,), 64 * (256 // 64 + 1))
    assert tensor.all_segments == (*tensor.segments, tensor.order)
    assert tensor.size_bytes == 4 * 64 + 4 * 4 + 64 * 4
    kept = QuantizedMatrix((), SYMMETRIC, None, frozenset())
    plan = build_plan(make_config(), {"a": source((4, 64))}, {}, "fp32", {"a": kept})
    assert plan.tensors["a"].order is None


def test_blocks_that_do_not_divide_a_row_are_refused_by_name() -> None:
    sentence = r"a\.weight: a row of 96 weights .* blocks of 64"
    with pytest.raises(OptionsError, match=sentence):
        plan_one("a.weight", (10, 96), SYMMETRIC, "fp32")
    with pytest.raises(OptionsError, match=sentence):
        measure_bytes("a.weight", (10, 96), SYMMETRIC, "fp32")


def test_measured_bytes_are_the_planned_ones() -> None:
    for scheme in (None, SYMMETRIC, ASYMMETRIC):
        for name in ("a.o_proj.weight", "a.qkv_proj.weight"):
            planned = plan_one(name, (10, 128), scheme, "fp16").tensors[name].size_bytes
            assert measure_bytes(name, (10, 128), scheme, "fp16") == planned
