"""The C host on other processors, emulated: x86 without AVX-512, and 64-bit ARM.

Where activations stay in float every processor gives the same tokens; where kernels round them to
int8, each family in its own way, the vectors' `logit_rounding` bounds what that does.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import glm_runtime
from glm_runtime.graph.decoding import Decoder
from support import processors
from support.processors import CORTEX_A72, HASWELL, NEHALEM, NEOVERSE_N1, Processor

BOUND = 3  # times `logit_rounding`, as conformance.py says
LIMIT = 12  # tokens of an answer; emulated kernels are slow
TOLERANCE = 1e-4  # of float32 sums in another order


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Built ones, by machine."""
    return {}


def find_program(
    processor: Processor, programs: dict[str, Path], tmp_path: Path, config: pytest.Config
) -> Path:
    if processor.machine not in programs:
        if processor.machine == "aarch64":
            cache = config.cache.mkdir("onnxruntime")
            program = processors.build_for_arm(tmp_path / "arm", cache)
        else:
            program = processors.build_for_here(tmp_path / "here")
        programs[processor.machine] = program
    return programs[processor.machine]


def read_vectors(folder: Path) -> list[dict[str, Any]]:
    content: dict[str, Any] = json.loads((folder / "conformance.json").read_text("utf-8"))
    return list(content["vectors"])


@pytest.mark.exhaustive
@pytest.mark.parametrize("processor", [NEHALEM, HASWELL, CORTEX_A72], ids=lambda one: one.name)
def test_float_activations(
    processor: Processor,
    float_folder: Path,
    programs: dict[str, Path],
    tmp_path: Path,
    pytestconfig: pytest.Config,
) -> None:
    program = find_program(processor, programs, tmp_path, pytestconfig)
    vector = read_vectors(float_folder)[-1]  # the one that is hard to cut into characters
    found = processors.answer(processor, program, float_folder, vector, LIMIT)
    assert found["token_ids"] == vector["token_ids"]
    logits = np.array(found["logits"])[vector["logit_ids"]]
    np.testing.assert_allclose(logits, vector["logits"], rtol=0, atol=TOLERANCE)
    assert found["greedy"] == vector["greedy"]["token_ids"][:LIMIT]
    assert found["sampled"] == vector["sampled"]["token_ids"][:LIMIT]


@pytest.mark.parametrize(
    "processor",
    [HASWELL, pytest.param(NEOVERSE_N1, marks=pytest.mark.exhaustive)],
    ids=lambda one: one.name,
)
def test_int8_activations(
    processor: Processor,
    folder: Path,
    programs: dict[str, Path],
    tmp_path: Path,
    pytestconfig: pytest.Config,
) -> None:
    program = find_program(processor, programs, tmp_path, pytestconfig)
    model = glm_runtime.load(folder, device="cpu")
    vector = read_vectors(folder)[0]
    found = processors.answer(processor, program, folder, vector, 2 * LIMIT)
    assert found["token_ids"] == vector["token_ids"]
    bound = BOUND * vector["logit_rounding"] + TOLERANCE
    logits = np.array(found["logits"])[vector["logit_ids"]]
    np.testing.assert_allclose(logits, vector["logits"], rtol=0, atol=bound)
    expected = vector["greedy"]["token_ids"][: 2 * LIMIT]
    assert len(found["greedy"]) == len(expected)
    parted = find_parting(found["greedy"], expected)
    if parted is None:
        return
    chosen = vector["token_ids"] + vector["greedy"]["token_ids"][:parted]
    scores = Decoder(model.graph, model.manifest.model).append(chosen)[-1]
    best, second = np.sort(scores[: model.manifest.model.tokenizer_vocab_size])[:-3:-1]
    assert best - second < 2 * bound


def find_parting(ours: list[int], theirs: list[int]) -> int | None:
    """Where two answers become different; `None` if they do not."""
    pairs = zip(ours, theirs, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), None)
