"""Checkpoints that were quantized already: the graph computes with exactly their weights."""

from pathlib import Path

import numpy as np
import pytest
import torch

from glm_export import ExportOptions, export
from glm_export.errors import CheckpointError
from support.graphs import PlainGraph
from support.prequantized_checkpoints import Prequantized, write_prequantized
from support.prequantized_tensors import AWQ, COMPRESSED, GPTQ, Recipe
from support.refusals import assert_sentence
from support.tiny_models import TinyShape

CASES = [
    Prequantized(TinyShape(), Recipe(GPTQ, group_size=128, is_symmetric=True)),
    Prequantized(TinyShape(), Recipe(GPTQ, group_size=32, has_order=True), lambda name: True),
    Prequantized(TinyShape(), Recipe(GPTQ, 8, -1, version="gptq_v2"), is_split=True),
    Prequantized(TinyShape(model_type="glm", tie_word_embeddings=True), Recipe(AWQ, group_size=64)),
    Prequantized(TinyShape(), Recipe(COMPRESSED, group_size=128, scale_dtype="BF16")),
    Prequantized(TinyShape(), Recipe(COMPRESSED, 8, 32, has_order=True)),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.recipe.name)
def test_logits_are_those_of_the_dequantized_model(tmp_path: Path, case: Prequantized) -> None:
    model = write_prequantized(tmp_path / "in", case)
    export(ExportOptions(tmp_path / "in", tmp_path / "out", accuracy_level=0, verify="full"))
    ids = np.random.default_rng(0).integers(0, 320, (1, 33), dtype=np.int64)
    with torch.inference_mode():
        expected = model(torch.from_numpy(ids)).logits.numpy()
    graph = PlainGraph(tmp_path / "out")
    found = np.concatenate([graph.run(ids[:, :32]), graph.run(ids[:, 32:])], axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-5)


def test_scales_that_float16_does_not_hold(tmp_path: Path) -> None:
    """Stored integers are copied, never rounded again: float16 takes float16's scales only."""
    for scale_dtype in ("F16", "F32"):
        recipe = Recipe(COMPRESSED, scale_dtype=scale_dtype)
        write_prequantized(tmp_path / scale_dtype, Prequantized(TinyShape(), recipe))
    export(ExportOptions(tmp_path / "F16", tmp_path / "out", dtype="fp16"))
    with pytest.raises(CheckpointError) as caught:
        export(ExportOptions(tmp_path / "F32", tmp_path / "other", dtype="fp16"))
    assert_sentence(str(caught.value), "scales are not exact in fp16", "--dtype fp32")
    assert not (tmp_path / "other").exists()
