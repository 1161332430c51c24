"""Bad weight files through a whole export: one sentence, and no folder, hidden or not, is left.

`test_checkpoint.py` goes through more of the ways in which files can be wrong; here it matters that
an export asks all these questions, and when.
"""

from pathlib import Path

import numpy as np
import pytest

from glm_export import ExportOptions, export
from glm_export.errors import CheckpointError, describe_overflow
from support.broken_checkpoints import (
    INDEXES,
    SHAPES,
    SHARDS,
    WEIGHTS,
    RawTensor,
    edit_config,
    from_array,
    poison,
    random_tensors,
    replace_tensors,
    split_into_shards,
    write_json,
    write_small,
    write_torch,
)
from support.refusals import (
    Damage,
    assert_export_refused,
    assert_sentence,
    nothing_left_behind,
    refuse,
)

QUERY = "model.layers.0.self_attn.q_proj.weight"
NORM = "model.layers.0.post_mlp_layernorm.weight"
EMBEDDING = "model.embed_tokens.weight"


def test_the_sound_checkpoint_is_exported(tmp_path: Path) -> None:
    """So that what follows fails for the damage and for nothing else."""
    report = export(ExportOptions(write_small(tmp_path / "checkpoint"), tmp_path / "out"))
    assert report.verification["is_passed"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "out"]


# --- files


def name_weights_twice(checkpoint: Path) -> None:
    (checkpoint / "b.safetensors").write_bytes((checkpoint / WEIGHTS).read_bytes())
    (checkpoint / WEIGHTS).rename(checkpoint / "a.safetensors")


def write_index_of_nothing(checkpoint: Path) -> None:
    (checkpoint / WEIGHTS).unlink()
    weight_map = {"x": "gone.safetensors"}
    write_json(checkpoint / "model.safetensors.index.json", {"weight_map": weight_map})


@pytest.mark.usefixtures("no_tracing")
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda c: (c / "config.json").unlink(), ("no config.json in",)),
        (lambda c: (c / "config.json").write_text("{"), ("config.json is not readable JSON",)),
        (
            lambda c: (c / "config.json").write_text("[]"),
            ("config.json does not hold a JSON object",),
        ),
        (lambda c: (c / WEIGHTS).unlink(), ("no *.safetensors and no pytorch_model*.bin in",)),
        (lambda c: (c / WEIGHTS).write_bytes(b""), (WEIGHTS, "no whole safetensors header")),
        (
            lambda c: (c / WEIGHTS).write_bytes((c / WEIGHTS).read_bytes()[:-1]),
            (WEIGHTS, "the file is truncated"),
        ),
        (
            name_weights_twice,
            ("a.safetensors and again in b.safetensors",),
        ),
        (
            write_index_of_nothing,
            ("names gone.safetensors, which is missing",),
        ),
    ],
)
def test_files(tmp_path: Path, damage: Damage, words: tuple[str, ...]) -> None:
    refuse(tmp_path, damage, CheckpointError, *words)


def test_no_such_checkpoint(tmp_path: Path) -> None:
    options = ExportOptions(tmp_path / "none", tmp_path / "out")
    assert_export_refused(options, CheckpointError, "none is not a folder", "give the checkpoint's")


# --- tensors


@pytest.mark.usefixtures("no_tracing")
@pytest.mark.parametrize("name", sorted(SHAPES))
def test_a_missing_tensor(tmp_path: Path, name: str) -> None:
    words = (f"{name} {list(SHAPES[name])} is missing", "check that all weight files are in")
    refuse(tmp_path, lambda c: replace_tensors(c, drop=[name]), CheckpointError, *words)


@pytest.mark.usefixtures("no_tracing")
def test_a_missing_layer(tmp_path: Path) -> None:
    word = "model.layers.1.self_attn.q_proj.weight [64, 64] is missing"
    refuse(tmp_path, lambda c: edit_config(c, num_hidden_layers=2), CheckpointError, word)


@pytest.mark.usefixtures("no_tracing")
@pytest.mark.parametrize("name", ["model.layers.1.input_layernorm.weight", "weird\n\x1b[2J"])
def test_a_surplus_tensor(tmp_path: Path, name: str) -> None:
    extra = from_array(np.ones(64, np.float32))
    refuse_surplus(tmp_path, {name: extra, "zzz": extra}, f"{name} and 1 more do not belong")


def refuse_surplus(tmp_path: Path, tensors: dict[str, RawTensor], *words: str) -> None:
    checkpoint = write_small(tmp_path / "checkpoint")
    replace_tensors(checkpoint, add=tensors)
    with nothing_left_behind(tmp_path), pytest.raises(CheckpointError) as caught:
        export(ExportOptions(checkpoint, tmp_path / "out"))
    for word in (*words, "check that config.json and the weights come from the same revision"):
        assert word in str(caught.value)


@pytest.mark.usefixtures("no_tracing")
@pytest.mark.parametrize(
    ("name", "shape"),
    [(QUERY, (63, 64)), (QUERY, (4096,)), (QUERY, (64, 64, 1)), (NORM, (65,)), (NORM, (1, 64))],
)
def test_a_misshapen_tensor(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    tensor = from_array(np.ones(shape, np.float32))
    words = (f"{name} is {list(shape)} but config.json makes it {list(SHAPES[name])}", "revision")
    refuse(tmp_path, lambda c: replace_tensors(c, add={name: tensor}), CheckpointError, *words)


DTYPES = {"F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "BOOL": 1, "I64": 8, "F64": 8}


@pytest.mark.usefixtures("no_tracing")
@pytest.mark.parametrize("dtype", [*DTYPES, "U8"])
def test_a_dtype_that_is_no_float_of_16_or_32_bits(tmp_path: Path, dtype: str) -> None:
    tensor = RawTensor(dtype, SHAPES[QUERY], bytes(64 * 64 * DTYPES.get(dtype, 1)))
    words = (f"{QUERY} has dtype {dtype}; supported are F32, F16, BF16", "not quantized", "save")
    refuse(tmp_path, lambda c: replace_tensors(c, add={QUERY: tensor}), CheckpointError, *words)


@pytest.mark.usefixtures("no_tracing")
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_same_in_a_file_of_pytorch(tmp_path: Path, dtype: str) -> None:
    tensor = RawTensor(dtype, SHAPES[QUERY], bytes(64 * 64 * DTYPES[dtype]))
    words = (f"{QUERY} has dtype {dtype}; supported are F32, F16, BF16", "not quantized", "save")
    refuse(
        tmp_path,
        lambda c: use_torch_file(c, {**random_tensors(), QUERY: tensor}),
        CheckpointError,
        *words,
    )


@pytest.mark.usefixtures("no_tracing")
def test_a_type_of_pytorch_that_safetensors_lacks(tmp_path: Path) -> None:
    tensor = RawTensor("C128", SHAPES[QUERY], bytes(64 * 64 * 16))
    words = (f"{QUERY} is a tensor [64, 64] of torch.complex128", "supported are F32, F16, BF16")
    refuse(
        tmp_path,
        lambda c: use_torch_file(c, {**random_tensors(), QUERY: tensor}),
        CheckpointError,
        *words,
    )


def use_torch_file(checkpoint: Path, tensors: dict[str, RawTensor]) -> None:
    (checkpoint / WEIGHTS).unlink()
    write_torch(checkpoint / "pytorch_model.bin", tensors)


@pytest.mark.usefixtures("no_tracing")
def test_fp8_by_its_config(tmp_path: Path) -> None:
    """A checkpoint of 8-bit floats without their scales."""

    def damage(checkpoint: Path) -> None:
        edit_config(checkpoint, quantization_config={"quant_method": "fp8"})
        tensor = RawTensor("F8_E4M3", SHAPES[QUERY], bytes(64 * 64))
        replace_tensors(checkpoint, add={QUERY: tensor})

    words = (f"{QUERY}_scale_inv [1, 1] is missing, which fp8 needs", "belong to this config.json")
    refuse(tmp_path, damage, CheckpointError, *words)


@pytest.mark.usefixtures("no_tracing")
@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_an_index_that_leaves_out_a_shard(tmp_path: Path, kind: str) -> None:
    """The shard lies there; what the index does not name is no part of the checkpoint."""

    def damage(checkpoint: Path) -> None:
        first = SHARDS[kind][0]
        named = {t: f for t, f in split_into_shards(checkpoint, kind).items() if f == first}
        write_json(checkpoint / INDEXES[kind], {"weight_map": named})

    refuse(tmp_path, damage, CheckpointError, "is missing", "are named by its index if it has one")


@pytest.mark.usefixtures("no_tracing")
@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_an_index_that_is_wrong(tmp_path: Path, kind: str) -> None:
    def damage(checkpoint: Path) -> None:
        weight_map = split_into_shards(checkpoint, kind)
        write_json(
            checkpoint / INDEXES[kind],
            {"weight_map": {**weight_map, "lm_head.weight": SHARDS[kind][0]}},
        )

    words = (f"lm_head.weight is in {SHARDS[kind][0]}, but it is in {SHARDS[kind][1]}",)
    refuse(tmp_path, damage, CheckpointError, *words)


# --- values


@pytest.mark.usefixtures("no_graph")
@pytest.mark.parametrize("name", [QUERY, NORM, EMBEDDING])
@pytest.mark.parametrize("quant", ["none", "int4"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_nan_and_inf(tmp_path: Path, name: str, quant: str, value: float) -> None:
    """Even unverified: what is no number is never written."""
    words = (f"{name}, rows 0-{SHAPES[name][0]} have ", "NaN", "Inf", "check the checkpoint's file")
    refuse(
        tmp_path,
        lambda c: poison(c, name, value),
        CheckpointError,
        *words,
        quant=quant,
        verify="none",
    )


@pytest.mark.usefixtures("no_graph")
@pytest.mark.parametrize("quant", ["none", "int4", "int8"])
@pytest.mark.filterwarnings("error")
def test_a_weight_that_float16_cannot_hold(tmp_path: Path, quant: str) -> None:
    """Quantized, it is the scale that overflows: 1e8 / 255 is far beyond 65,504."""
    words = (f"{QUERY}, rows 0-64 have ", "too large for fp16", "export with --dtype fp32")
    refuse(
        tmp_path,
        lambda c: poison(c, QUERY, 1e8),
        CheckpointError,
        *words,
        quant=quant,
        dtype="fp16",
        verify="none",
        method=None if quant == "none" else "rtn",
        block_size=None if quant == "none" else 32,
    )


@pytest.mark.usefixtures("no_graph")
@pytest.mark.filterwarnings("error")
def test_a_scale_that_float32_cannot_hold(tmp_path: Path) -> None:
    """Both weights are finite, but high - low is not."""
    values = np.zeros(SHAPES[QUERY], np.float32)
    values[0, :2] = 3e38, -3e38
    words = (f"{QUERY}, rows 0-64: ", "a range beyond float32", "check the checkpoint's file")
    refuse(
        tmp_path,
        lambda c: replace_tensors(c, add={QUERY: from_array(values)}),
        CheckpointError,
        *words,
        verify="none",
        method="rtn",
    )


@pytest.mark.usefixtures("no_graph")
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize("method", [None, "gptq"])
def test_calibrating_weights_that_nothing_holds(tmp_path: Path, method: str | None) -> None:
    """The same two, met where layers are run instead of where rows are written."""
    values = np.zeros(SHAPES[QUERY], np.float32)
    values[0, :2] = 3e38, -3e38
    refuse(
        tmp_path / "wide",
        lambda c: replace_tensors(c, add={QUERY: from_array(values)}),
        CheckpointError,
        "check the checkpoint's",
        verify="none",
        method=method,
    )
    refuse(
        tmp_path / "large",
        lambda c: poison(c, QUERY, 1e8),
        CheckpointError,
        "too large for fp16",
        "--dtype fp32",
        dtype="fp16",
        verify="none",
        method=method,
    )


def test_float32_is_recommended_for_float16_only() -> None:
    messages = {dtype: str(describe_overflow("w has", dtype)) for dtype in ("fp32", "fp16")}
    assert_sentence(messages["fp32"], "w has NaN, Inf or a number too large for fp32; check")
    assert_sentence(messages["fp16"], "too large for fp16; check", "or export with --dtype fp32")
    assert "--dtype" not in messages["fp32"]
