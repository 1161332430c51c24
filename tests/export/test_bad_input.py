"""Bad checkpoints through a whole export: one sentence, and no folder, hidden or not, is left.

`test_checkpoint.py` and `test_config_values.py` go through more of the ways in which files and
values can be wrong; here it matters that an export asks all these questions, and when.
"""

import dataclasses
import json
import math
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

import glm_export.pipeline
from glm_export import ExportError, ExportOptions, export
from glm_export.architectures import DecoderConfig
from glm_export.errors import (
    CheckpointError,
    OptionsError,
    OutputError,
    UnsupportedModelError,
    VerificationError,
)
from glm_export.trace import trace_decoder
from glm_export.writer import DataFile
from support.broken_checkpoints import (
    CONFIG,
    SHAPES,
    WEIGHTS,
    RawTensor,
    build_tokenizer_json,
    edit_config,
    edit_json,
    encode_header,
    from_array,
    poison,
    random_tensors,
    replace_tensors,
    write_json,
    write_small,
)
from support.refusals import assert_export_refused, assert_sentence, nothing_left_behind

Damage = Callable[[Path], object]
QUERY = "model.layers.0.self_attn.q_proj.weight"
NORM = "model.layers.0.post_mlp_layernorm.weight"
EMBEDDING = "model.embed_tokens.weight"
TRACING_IS_TOO_LATE = "the graph was traced before the input was looked at"


def refuse(
    tmp_path: Path, damage: Damage, kind: type[ExportError], *words: str, **values: Any
) -> None:
    checkpoint = write_small(tmp_path / "checkpoint")
    damage(checkpoint)
    options = ExportOptions(checkpoint, tmp_path / "out", **values)
    assert_export_refused(options, kind, *words)


@pytest.fixture
def no_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves tracing out, which takes two seconds, where the weights alone matter."""
    monkeypatch.setattr(glm_export.pipeline, "_write_graph", lambda *_: {})


@pytest.fixture
def no_tracing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything cheap is checked before anything slow: fails the test if a graph is traced."""

    def fail(*_: object) -> None:
        raise AssertionError(TRACING_IS_TOO_LATE)

    monkeypatch.setattr(glm_export.pipeline, "trace_decoder", fail)


def test_the_sound_checkpoint_is_exported(tmp_path: Path) -> None:
    """So that what follows fails for the damage and for nothing else."""
    report = export(ExportOptions(write_small(tmp_path / "checkpoint"), tmp_path / "out"))
    assert report.verification["is_passed"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "out"]


# --- files


@pytest.mark.usefixtures("no_tracing")
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda c: (c / "config.json").unlink(), ("no config.json in",)),
        (lambda c: (c / "config.json").write_text("{"), ("config.json is not readable JSON",)),
        (lambda c: (c / "config.json").write_text("[]"), ("config.json holds no JSON object",)),
        (lambda c: (c / WEIGHTS).unlink(), ("no *.safetensors and no pytorch_model*.bin in",)),
        (lambda c: (c / WEIGHTS).write_bytes(b""), (WEIGHTS, "no whole safetensors header")),
        (
            lambda c: (c / WEIGHTS).write_bytes((c / WEIGHTS).read_bytes()[:-1]),
            (WEIGHTS, "the file is truncated"),
        ),
        (
            lambda c: (c / "extra.safetensors").write_bytes((c / WEIGHTS).read_bytes()),
            ("extra.safetensors and again in model.safetensors",),
        ),
        (
            lambda c: write_json(
                c / "model.safetensors.index.json", {"weight_map": {"x": "gone.safetensors"}}
            ),
            ("names gone.safetensors, which is missing",),
        ),
    ],
)
def test_files(tmp_path: Path, damage: Damage, words: tuple[str, ...]) -> None:
    refuse(tmp_path, damage, CheckpointError, *words)


def test_no_such_checkpoint(tmp_path: Path) -> None:
    options = ExportOptions(tmp_path / "none", tmp_path / "out")
    assert_export_refused(options, CheckpointError, "none is not a folder", "give the checkpoint's")


# --- config.json


@pytest.mark.usefixtures("no_tracing")
@pytest.mark.parametrize("model_type", ["llama", "GLM4", "", None, 4, ["glm4"], {}])
def test_model_type(tmp_path: Path, model_type: object) -> None:
    words = (f"config.json says model_type={model_type!r}", "supported are chatglm, glm, glm4")
    refuse(
        tmp_path,
        lambda c: edit_config(c, model_type=model_type),
        UnsupportedModelError,
        *words,
        "take a checkpoint of that type",
    )


@pytest.mark.usefixtures("no_tracing")
@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"hidden_act": "relu"}, "hidden_act='relu'"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}}, "rope_type='dynamic'"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "factor=0.0"),
        ({"num_attention_heads": 3, "num_key_value_heads": 2}, "not a multiple of"),
        ({"partial_rotary_factor": 0.3}, "turns 9 numbers of a head of 32"),
        ({"hidden_size": "64"}, "hidden_size='64'"),
        ({"vocab_size": -1}, "vocab_size=-1"),
    ],
)
def test_config_values(tmp_path: Path, values: dict[str, object], word: str) -> None:
    refuse(tmp_path, lambda c: edit_config(c, **values), UnsupportedModelError, word)


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
@pytest.mark.parametrize(
    "name", ["model.layers.1.input_layernorm.weight", "model.rotary_emb.inv_freq", "weird\n\x1b[2J"]
)
def test_a_surplus_tensor(tmp_path: Path, name: str) -> None:
    extra = from_array(np.ones(64, np.float32))
    refuse_surplus(tmp_path, {name: extra, "zzz": extra}, "2 tensors do not belong", name)


def refuse_surplus(tmp_path: Path, tensors: dict[str, RawTensor], *words: str) -> None:
    checkpoint = write_small(tmp_path / "checkpoint")
    replace_tensors(checkpoint, add=tensors)
    with nothing_left_behind(tmp_path), pytest.raises(CheckpointError) as caught:
        export(ExportOptions(checkpoint, tmp_path / "out"))
    for word in (*words, "check that config.json and the weights come from the same revision"):
        assert word in str(caught.value)


@pytest.mark.usefixtures("no_tracing")
def test_a_head_beside_a_tied_one(tmp_path: Path) -> None:
    """Which of the two is meant? Nobody can say, so neither is chosen in silence."""
    refuse(
        tmp_path,
        lambda c: edit_config(c, tie_word_embeddings=True),
        CheckpointError,
        "1 tensors do not belong to this model, the first is lm_head.weight",
    )


@pytest.mark.usefixtures("no_tracing")
@pytest.mark.parametrize(
    ("name", "shape"),
    [(QUERY, (63, 64)), (QUERY, (4096,)), (QUERY, (64, 64, 1)), (NORM, (65,)), (NORM, (1, 64))],
)
def test_a_misshapen_tensor(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    tensor = from_array(np.ones(shape, np.float32))
    words = (f"{name} is {list(shape)} but config.json makes it {list(SHAPES[name])}", "revision")
    refuse(tmp_path, lambda c: replace_tensors(c, add={name: tensor}), CheckpointError, *words)


@pytest.mark.usefixtures("no_tracing")
@pytest.mark.parametrize("dtype", ["F8_E4M3", "I8", "U8", "BOOL"])
def test_a_dtype_that_is_no_float_of_16_or_32_bits(tmp_path: Path, dtype: str) -> None:
    tensor = RawTensor(dtype, SHAPES[QUERY], bytes(64 * 64))
    words = (f"{QUERY} has dtype {dtype}; supported are F32, F16, BF16", "not quantized")
    refuse(tmp_path, lambda c: replace_tensors(c, add={QUERY: tensor}), CheckpointError, *words)


# --- values


@pytest.mark.usefixtures("no_graph")
@pytest.mark.parametrize("name", [QUERY, NORM, EMBEDDING])
@pytest.mark.parametrize("quant", ["none", "int4"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_nan_and_inf(tmp_path: Path, name: str, quant: str, value: float) -> None:
    """Even unverified: what is no number is never written."""
    words = (f"{name}, rows 0-{SHAPES[name][0]}: ", "NaN", "Inf", "check the checkpoint's file")
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
    words = (f"{QUERY}, rows 0-64: ", "beyond what fp16 holds", "export with --dtype fp32")
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
        "beyond what fp16 holds",
        "--dtype fp32",
        dtype="fp16",
        verify="none",
        method=method,
    )


# --- options that do not fit the model


@pytest.mark.usefixtures("no_tracing")
@pytest.mark.parametrize(("quant", "block_size"), [("int4", 64), ("int8", 64), ("int8", None)])
def test_a_block_size_that_does_not_divide(
    tmp_path: Path, quant: str, block_size: int | None
) -> None:
    """The rows of down_proj have 96 weights; int8's default is 128, which 64 does not hold."""
    name, row = ("down_proj", 96) if block_size else ("embed_tokens", 64)
    words = (f"{name}.weight: a row of {row} weights does not divide", "choose a block size")
    refuse(tmp_path, lambda _: None, OptionsError, *words, quant=quant, block_size=block_size)


# --- tokenizer and its ids


@pytest.mark.usefixtures("no_tracing")
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda c: (c / "tokenizer.json").unlink(), ("no tokenizer.json and no", "fast form")),
        (lambda c: (c / "tokenizer.json").write_text("{"), ("tokenizer.json is not what the",)),
        (lambda c: write_json(c / "tokenizer.json", {}), ("tokenizer.json is not what the",)),
        (
            lambda c: edit_json(c / "tokenizer.json", model={"type": "BPE", "vocab": {"a": -1}}),
            ("tokenizer.json is not what the tokenizers package loads (",),
        ),
        (
            lambda c: edit_json(
                c / "tokenizer.json",
                model={"type": "BPE", "vocab": {}, "merges": []},
                added_tokens=[],
            ),
            ("tokenizer.json has no tokens", "download it again"),
        ),
        (
            lambda c: write_json(c / "tokenizer.json", grow_vocabulary()),
            ("tokenizer.json has ids up to 320", "vocab_size=320", "the same revision"),
        ),
        (lambda c: edit_config(c, eos_token_id=None), ("eos_token_id is missing", "add it to")),
        (lambda c: edit_config(c, eos_token_id=[]), ("eos_token_id is missing", "add it to")),
        (lambda c: edit_config(c, eos_token_id=320), ("eos_token_id is 320", "vocab_size=320")),
        (lambda c: edit_config(c, eos_token_id=[256, -1]), ("eos_token_id is [256, -1]",)),
        (lambda c: edit_config(c, eos_token_id="</s>"), ("eos_token_id is '</s>'",)),
        (lambda c: edit_config(c, eos_token_id=[True]), ("eos_token_id is [True]",)),
        (lambda c: edit_config(c, pad_token_id=-1), ("pad_token_id is -1", "vocab_size=320")),
        (lambda c: edit_config(c, bos_token_id=999), ("bos_token_id is 999", "vocab_size=320")),
        (
            lambda c: write_json(c / "generation_config.json", {"eos_token_id": [999]}),
            ("eos_token_id is [999]", "correct generation_config.json or config.json"),
        ),
    ],
)
def test_tokens(tmp_path: Path, damage: Damage, words: tuple[str, ...]) -> None:
    refuse(tmp_path, damage, CheckpointError, *words)


def grow_vocabulary() -> dict[str, Any]:
    tokenizer = build_tokenizer_json()
    tokenizer["model"]["vocab"]["beyond"] = 320
    return tokenizer


@pytest.mark.usefixtures("no_tracing")
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (
            lambda c: (c / "chat_template.jinja").write_bytes(b"\xff\xfe"),
            ("chat_template.jinja is not readable UTF-8 (", "download it again"),
        ),
        (
            lambda c: (c / "tokenizer_config.json").write_text("{"),
            ("tokenizer_config.json is not readable JSON",),
        ),
        (
            lambda c: (c / "generation_config.json").write_text("[]"),
            ("generation_config.json holds no JSON object",),
        ),
        (
            lambda c: edit_json(c / "generation_config.json", temperature=float("nan")),
            ("generation_config.json has a value that is not JSON in UTF-8 (",),
        ),
        (
            lambda c: (c / "tokenizer_config.json").write_text('{"eos_token": "\\ud83d"}'),
            ("tokenizer_config.json has a value that is not JSON in UTF-8 (", "surrogates"),
        ),
    ],
)
def test_small_files(tmp_path: Path, damage: Damage, words: tuple[str, ...]) -> None:
    refuse(tmp_path, damage, CheckpointError, *words)


@pytest.mark.usefixtures("no_graph")
@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("from the config", b"from the config"),
        ([{"name": "default", "template": "d"}, {"name": "rag", "template": "r"}], b"d"),
        ([{"name": "rag", "template": "r"}, 3], None),
        (None, None),
    ],
)
def test_templates_in_tokenizer_config(
    tmp_path: Path, template: object, expected: bytes | None
) -> None:
    """Not bad input, but once read as none: transformers 4 saved several templates as a list."""
    checkpoint = write_small(tmp_path / "checkpoint")
    (checkpoint / "chat_template.jinja").unlink()
    edit_json(checkpoint / "tokenizer_config.json", chat_template=template)
    export(ExportOptions(checkpoint, tmp_path / "out", method="rtn", verify="none"))
    path = tmp_path / "out" / "chat_template.jinja"
    assert (path.read_bytes() if path.exists() else None) == expected


# --- disk


@pytest.mark.usefixtures("no_tracing")
def test_too_little_disk(tmp_path: Path) -> None:
    """A checkpoint that is nearly all hole: bfloat16 zeros whose float32 would not fit.

    Its embedding has three times as many weights as there are free bytes divided by four.
    """
    rows = write_sparse_checkpoint(tmp_path / "checkpoint", free_share=3)
    options = ExportOptions(tmp_path / "checkpoint", tmp_path / "new" / "out", quant="none")
    words = ("GB free but the folder needs", f"{rows * 64 * 4 / 1e9 + 0.07:.1f} GB", "free some")
    assert_export_refused(options, OutputError, str(tmp_path), *words)


def write_sparse_checkpoint(folder: Path, free_share: int) -> int:
    """A tied checkpoint whose data is never written; the number of its embedding's rows."""
    write_small(folder)
    rows: int = free_share * shutil.disk_usage(folder).free // 4 // 64
    edit_config(folder, vocab_size=rows, tie_word_embeddings=True)
    header, offset = {}, 0
    for name, shape in {**SHAPES, EMBEDDING: (rows, 64)}.items():
        if name == "lm_head.weight":
            continue
        end = offset + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, end]}
        offset = end
    start = encode_header(header)
    (folder / WEIGHTS).write_bytes(start)
    try:
        with (folder / WEIGHTS).open("r+b") as file:
            file.truncate(len(start) + offset)
    except OSError as error:
        pytest.skip(f"this file system holds no sparse file of {offset} bytes: {error}")
    return rows


@pytest.mark.parametrize(
    ("stage", "limit_bytes"),
    [
        ("tracing", 1_000),  # the data file cannot get its size
        ("writing", 30_000),  # it has its size, but its end is not filled
        ("describing", 2_000),  # only the small files are missing
    ],
)
def test_the_disk_fills_up_meanwhile(tmp_path: Path, stage: str, limit_bytes: int) -> None:
    """The system refuses real writes from a certain stage on."""
    checkpoint = write_small(tmp_path / "checkpoint")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def limit(reached: str, done: int, total: int) -> None:
        if reached.startswith(stage):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))

    try:
        with nothing_left_behind(tmp_path), pytest.raises(OutputError) as caught:
            export(ExportOptions(checkpoint, tmp_path / "out", method="rtn"), limit)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert_sentence(str(caught.value), "out could not be written (", "File too large", "another -o")


@pytest.mark.usefixtures("no_graph")
def test_a_disk_that_forgets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One bit of what is read back differs from what was written."""
    read_rows = DataFile.read_rows

    def read_wrongly(self: DataFile, *arguments: Any) -> np.ndarray[Any, Any]:
        rows = read_rows(self, *arguments).copy()
        rows.view(np.uint8).reshape(-1)[0] ^= 1
        return rows

    monkeypatch.setattr(DataFile, "read_rows", read_wrongly)
    for quant in ("none", "int4"):
        refuse_later(tmp_path / quant, quant)


def refuse_later(tmp_path: Path, quant: str) -> None:
    checkpoint = write_small(tmp_path / "checkpoint")
    method = None if quant == "none" else "rtn"
    options = ExportOptions(
        checkpoint, tmp_path / "out", quant=quant, method=method, verify="tensors"
    )
    words = ("the file does not hold what was written", "check the disk")
    assert_export_refused(options, VerificationError, *words)


def test_a_graph_that_computes_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slip in tracing, played here by another epsilon, is found by running the graph."""

    def trace_wrongly(config: DecoderConfig, *dtypes: torch.dtype) -> ir.Model:
        return trace_decoder(dataclasses.replace(config, rms_norm_epsilon=1.0), *dtypes)

    monkeypatch.setattr(glm_export.pipeline, "trace_decoder", trace_wrongly)
    words = ("the graph's logits differ from PyTorch's by", "the most that rounding explains")
    refuse(tmp_path, lambda _: None, VerificationError, *words, quant="none")


@pytest.mark.usefixtures("no_graph")
def test_weights_that_vanish_meanwhile(tmp_path: Path) -> None:
    checkpoint = write_small(tmp_path / "checkpoint")

    def vanish(stage: str, done: int, total: int) -> None:
        if stage.startswith("tracing"):
            (checkpoint / WEIGHTS).rename(tmp_path / "elsewhere")

    with pytest.raises(CheckpointError) as caught:
        export(ExportOptions(checkpoint, tmp_path / "out", method="rtn"), vanish)
    assert_sentence(str(caught.value), WEIGHTS, "cannot be read", "check the disk")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "elsewhere"]


def test_the_config_is_the_one_these_tests_mean() -> None:
    """The hand-written shapes and config agree with each other and with the tokenizer."""
    assert json.loads(json.dumps(CONFIG))["vocab_size"] == SHAPES[EMBEDDING][0]
    assert set(random_tensors()) == set(SHAPES)
