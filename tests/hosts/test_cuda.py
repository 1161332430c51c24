"""On a real GPU: the folder for CUDA gives what the same folder gives on the CPU."""

import dataclasses
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import glm_runtime
from glm_export import ExportOptions, export
from glm_runtime import GenerationSettings, Model, SamplingSettings
from glm_runtime.graph.decoding import Decoder

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(
        "CUDAExecutionProvider" not in onnxruntime.get_available_providers(),
        reason="needs a GPU and onnxruntime-gpu",
    ),
]
SAMPLE = Path(__file__).parents[2] / "artifacts" / "glm4-sample"
PROMPT = "[gMASK]<sop><|user|>\nRecite John 3:16.<|assistant|>\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("cuda") / "out"
    export(ExportOptions(SAMPLE, output, method="rtn", target="cuda", verify="none"))
    return output


@pytest.fixture(scope="module", params=[True, False], ids=["CUDA graph", "no CUDA graph"])
def on_gpu(folder: Path, request: pytest.FixtureRequest) -> Model:
    return glm_runtime.load(folder, device="cuda", cuda_graph=request.param)


def test_every_node_runs_on_the_gpu(on_gpu: Model) -> None:
    """A CUDA graph, which holds no copy from or to the CPU, would be refused otherwise."""
    assert on_gpu.graph.cpu_nodes == ()
    assert on_gpu.graph.has_fixed_steps


def test_logits_are_the_cpus(folder: Path, on_gpu: Model) -> None:
    """float16 on both sides, sums in another order."""
    on_cpu = glm_runtime.load(folder, device="cpu")
    here, there = (Decoder(m.graph, m.manifest.model) for m in (on_cpu, on_gpu))
    tokens = np.random.Generator(np.random.PCG64(0)).integers(0, 4000, 300).tolist()
    for start, stop in [(0, 200), *((i, i + 1) for i in range(200, 300))]:
        expected = here.append(tokens[start:stop]).astype(np.float32)
        found = there.append(tokens[start:stop]).astype(np.float32)
        assert np.linalg.norm(found - expected) < 0.02 * np.linalg.norm(expected)


def test_answers_are_the_same_on_every_way(on_gpu: Model) -> None:
    """Chosen on the device, or on the host from its logits; with fixed buffers, or without."""
    settings = GenerationSettings(SamplingSettings(temperature=0), max_new_tokens=300)
    chosen = [piece.token_id for piece in on_gpu.generate(PROMPT, settings)]
    measured = dataclasses.replace(settings, top_logprobs=0)
    assert [piece.token_id for piece in on_gpu.generate(PROMPT, measured)] == chosen
    if not on_gpu.graph.has_cuda_graph:
        plain = dataclasses.replace(
            on_gpu, graph=dataclasses.replace(on_gpu.graph, has_fixed_steps=False)
        )
        assert [piece.token_id for piece in plain.generate(PROMPT, settings)] == chosen
