"""Every kind of folder that the exporter writes gives Python's logits and tokens in C++."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import glm_runtime
from glm_export import ExportOptions, export
from glm_export.checkpoint.rope_options import RopeOptions
from glm_runtime import GenerationSettings, SamplingSettings
from glm_runtime.graph.decoding import Decoder
from support.chatglm_checkpoints import write_chatglm
from support.cpp_library import GREEDY, Library, Settings
from support.neutral_sampling import neutral_sampling
from support.tiny_models import TinyShape, build_model, write_checkpoint

SAMPLE = Path(__file__).parents[2] / "artifacts" / "glm4-sample"
FIRST = TinyShape(model_type="glm", rms_norm_eps=1.5625e-7)
EDGE = replace(
    FIRST,
    num_key_value_heads=4,
    partial_rotary_factor=1.0,
    attention_bias=False,
    tie_word_embeddings=True,
)


def write_sample(folder: Path) -> Path:
    folder.symlink_to(SAMPLE)
    return folder


def write_tiny(shape: TinyShape) -> Callable[[Path], Path]:
    return lambda folder: write_checkpoint(folder, build_model(shape))


def write_old(folder: Path) -> Path:
    return write_chatglm(folder, build_model(FIRST), 500.0)


@dataclass(frozen=True)
class Kind:
    """A checkpoint, and how it is exported."""

    write: Callable[[Path], Path]
    options: dict[str, Any]


RTN = {"method": "rtn", "verify": "none"}
FLOAT = {"quant": "none", "verify": "none"}
YARN = RopeOptions(scaling="yarn", factor=4.0)
KINDS = {
    "float": Kind(write_sample, FLOAT),
    "fp16": Kind(write_sample, {**FLOAT, "dtype": "fp16"}),
    "int8 weights": Kind(write_sample, {**RTN, "quant": "int8"}),
    "int2 weights": Kind(write_sample, {**RTN, "quant": "int2"}),
    "int8 cache": Kind(write_sample, {**RTN, "kv_cache": "int8", "calibration_tokens": 512}),
    "for CUDA": Kind(write_sample, {**RTN, "target": "cuda"}),
    "for CUDA in float": Kind(write_sample, {**FLOAT, "target": "cuda", "dtype": "fp32"}),
    "yarn": Kind(write_sample, {**RTN, "rope": YARN}),
    "glm": Kind(write_tiny(FIRST), RTN),
    "glm, tied head": Kind(write_tiny(EDGE), RTN),
    "glm4, tiny": Kind(write_tiny(TinyShape()), FLOAT),
    "chatglm": Kind(write_old, RTN),
}


VARIANTS = {"for CUDA in float", "glm, tied head", "glm4, tiny", "int2 weights", "yarn"}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.exhaustive if name in VARIANTS else ())
        for name in sorted(KINDS)
    ],
)
def test_a_kind_of_folder(name: str, library: Library, tmp_path: Path) -> None:
    """The same logits to 1e-5 after a prompt of two chunks, the same greedy and drawn tokens."""
    kind, folder = KINDS[name], tmp_path / "folder"
    export(ExportOptions(kind.write(tmp_path / "checkpoint"), folder, **kind.options))
    python = glm_runtime.load(folder, device="cpu")
    shape = python.manifest.model
    prompt = [65 + place * 7 % 190 for place in range(150)]
    expected = Decoder(python.graph, shape).prefill(prompt)
    model = library.load(folder, is_verified=True)
    session = model.new_session()
    found = session.logits(prompt, shape.vocab_size)
    np.testing.assert_allclose(found, expected.astype(np.float32), atol=1e-5)
    drawn = GenerationSettings(neutral_sampling(0.9, top_k=20, seed=3), 24)
    for settings in (GenerationSettings(SamplingSettings(temperature=0), 24), drawn):
        pieces = list(python.generate(prompt, settings))
        fresh = model.new_session()
        tokens = [piece.token for piece in fresh.generate(prompt, Settings.of(settings))]
        fresh.close()
        assert tokens == [piece.token_id for piece in pieces]
    session.close()
    model.close()


def test_a_context_that_is_just_full(library: Library, tmp_path: Path) -> None:
    """A prompt as long as the context gets one token; the buffers of the cache are not overrun."""
    folder = tmp_path / "folder"
    shape = replace(TinyShape(), max_position_embeddings=257)
    export(ExportOptions(write_tiny(shape)(tmp_path / "checkpoint"), folder, **FLOAT))
    model = library.load(folder)
    assert model.describe().context_length == 257
    python = glm_runtime.load(folder, device="cpu")
    settings = GenerationSettings(SamplingSettings(temperature=0), is_eos_ignored=True)
    session = model.new_session()
    for length in (257, 256, 200, 1):
        prompt = [65 + place * 7 % 190 for place in range(length)]
        pieces = session.generate(prompt, Settings.of(settings))
        assert len(pieces) == 258 - length
        assert pieces[-1].finish == "length"
        expected = [piece.token_id for piece in python.generate(prompt, settings)]
        assert [piece.token for piece in pieces] == expected
    assert len(session.generate([65] * 257, GREEDY)) == 1
    session.close()
    model.close()
