"""Disks that are too small, fill up or forget, through a whole export."""

import dataclasses
import math
import resource
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

import glm_export.pipeline
from glm_export import ExportOptions, export
from glm_export.errors import (
    CheckpointError,
    OutputError,
    VerificationError,
)
from glm_export.graph.trace import trace_decoder
from glm_export.model.architectures import DecoderConfig
from glm_export.output.writer import DataFile
from glm_export.plan.plan import Segment
from support.broken_checkpoints import (
    SHAPES,
    WEIGHTS,
    edit_config,
    encode_header,
    write_small,
)
from support.prequantized_checkpoints import Prequantized, write_prequantized
from support.prequantized_tensors import GPTQ, Recipe
from support.refusals import (
    assert_export_refused,
    assert_sentence,
    nothing_left_behind,
    refuse,
)
from support.tiny_models import TinyShape

EMBEDDING = "model.embed_tokens.weight"
_ROWS_OF_A_GB = 10**9 // (4 * 64)  # float32 rows of the small model's width


@pytest.mark.usefixtures("no_tracing")
def test_too_little_disk(tmp_path: Path) -> None:
    """A checkpoint that is nearly all hole: bfloat16 zeros whose float32 would not fit.

    Its embedding in float32 takes three times what is free, in whole GB, so that the size of the
    rest (about 0.07 GB) is never at the border where the sum is rounded.
    """
    rows = write_sparse_checkpoint(tmp_path / "checkpoint", free_share=3)
    options = ExportOptions(tmp_path / "checkpoint", tmp_path / "new" / "out", quant="none")
    words = ("GB free but the folder needs", f"{rows // _ROWS_OF_A_GB}.1 GB", "free disk space")
    assert_export_refused(options, OutputError, str(tmp_path), *words)


def write_sparse_checkpoint(folder: Path, free_share: int) -> int:
    """A tied checkpoint whose data is never written; the number of its embedding's rows."""
    write_small(folder)
    rows = (free_share * shutil.disk_usage(folder).free // 10**9 + 1) * _ROWS_OF_A_GB
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
        with nothing_left_behind(checkpoint), pytest.raises(OutputError) as caught:
            export(ExportOptions(checkpoint, tmp_path / "out", method="rtn"), limit)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert_sentence(str(caught.value), "out could not be written (", "File too large", "another -o")
    kept = tmp_path / ".out.unfinished"
    assert kept.exists() == (stage == "describing")
    assert (f"the finished work is kept in {kept}" in str(caught.value)) == kept.exists()
    assert len(list(tmp_path.iterdir())) == 1 + kept.exists()


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


@pytest.mark.usefixtures("no_graph")
@pytest.mark.parametrize("name", ["cos", "sin", "layers.0.qkv_proj.weight.order"])
def test_a_disk_that_forgets_a_computed_tensor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Tables and orders that stayed zero in the file passed as read back."""
    read_rows = DataFile.read_rows

    def read_zeros(self: DataFile, segment: Segment, *rows: int) -> np.ndarray[Any, Any]:
        return read_rows(self, segment, *rows) * (segment.name != name)

    monkeypatch.setattr(DataFile, "read_rows", read_zeros)
    recipe = Recipe(GPTQ, group_size=32, has_order=True)
    write_prequantized(tmp_path / "checkpoint", Prequantized(TinyShape(), recipe))
    options = ExportOptions(tmp_path / "checkpoint", tmp_path / "out", verify="tensors")
    assert_export_refused(options, VerificationError, f"{name}: the file does not hold")


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
    words = ("the graph's logits differ from PyTorch's by", "rounding explains at most")
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
