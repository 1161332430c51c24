import dataclasses
import math

import pytest

from glm_runtime import Model, benchmark
from glm_runtime.benchmark import BenchmarkPlan, count_weight_bytes_per_token, run_benchmark
from glm_runtime.errors import PromptError
from glm_runtime.folder.manifest import FileEntry, TensorEntry
from runtime.test_manifest import FILE, MANIFEST

HEAD = TensorEntry("lm_head.weight", (8, 4), "int4", 50, (), ())
EMBEDDING = TensorEntry("embed_tokens.weight", (8, 4), "int4", 70, (), ())
ROTARY = TensorEntry("cos", (8, 4), "fp32", 20, (), ())
LAYER = TensorEntry("layers.0.qkv_proj.weight", (8, 4), "int4", 300, (), ())


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        ((HEAD, EMBEDDING, ROTARY, LAYER), 1000 - 70 - 20),
        ((EMBEDDING, ROTARY, LAYER), 1000 - 20),  # tied: the head reads the whole table
        ((HEAD, LAYER), 1000),
    ],
)
def test_only_tables_that_are_looked_up_do_not_count(tensors: tuple, expected: int):
    files = {"model.onnx": FILE, "model.onnx.data": FileEntry(1000, FILE.sha256)}
    manifest = dataclasses.replace(MANIFEST, files=files, tensors=tensors)
    assert count_weight_bytes_per_token(manifest) == expected


def test_the_figures_follow_from_each_other(tiny_model: Model, monkeypatch: pytest.MonkeyPatch):
    """A reading rate of 10 GB/s is put in place of the measurement, which takes a second."""
    monkeypatch.setattr(benchmark, "measure_read_bytes_per_second", lambda threads: 1e10)
    plan = BenchmarkPlan(prompt_tokens=20, new_tokens=5, rounds=3)
    told: list[tuple[str, int, int]] = []
    report = run_benchmark(tiny_model, plan, lambda *stage: told.append(stage))
    assert told == [("measuring", done, 3) for done in range(4)]
    rate = report.decode_tokens_per_second
    assert 0 < report.decode_tokens_per_second_min <= rate <= report.decode_tokens_per_second_max
    first_seconds = report.time_to_first_token_ms / 1000
    assert math.isclose(report.prefill_tokens_per_second, 20 / first_seconds)
    share = rate * report.weight_bytes_per_token / 1e10
    assert report.bandwidth_share is not None
    assert math.isclose(report.bandwidth_share, share)
    assert report.weight_bytes_per_token == count_weight_bytes_per_token(tiny_model.manifest)


def test_on_a_gpu_no_share_is_claimed(tiny_model: Model):
    graph = dataclasses.replace(tiny_model.graph, device="cuda")
    model = dataclasses.replace(tiny_model, graph=graph)
    report = benchmark._summarize(
        model, BenchmarkPlan(1, 1, 1), [benchmark._Round(prefill_seconds=1, decode_seconds=1)]
    )
    assert report.read_bytes_per_second is None
    assert report.bandwidth_share is None


def test_more_tokens_than_the_context_holds_are_refused(tiny_model: Model):
    with pytest.raises(PromptError, match=r"257 tokens .* context length is 256"):
        run_benchmark(tiny_model, BenchmarkPlan(prompt_tokens=200, new_tokens=57, rounds=1))
