"""Measures prefill, decode, time to first token, and the share of memory bandwidth of a model.

Read `machine.py` for how the bandwidth is measured.
"""

import statistics
import time
from dataclasses import dataclass

import numpy as np

from glm_runtime.folder.manifest import DATA_NAME, Manifest
from glm_runtime.graph.decoding import Decoder, check_length
from glm_runtime.graph.machine import measure_read_bytes_per_second, read_peak_memory_bytes
from glm_runtime.model import Model
from glm_runtime.progress import Progress, ignore_progress
from glm_runtime.sampling.sampler import find_largest

_HEAD_NAMES = ("lm_head",)
_EMBEDDING_NAMES = ("embed_tokens",)
_ROTARY_NAMES = ("cos", "sin")


@dataclass(frozen=True)
class BenchmarkPlan:
    """Lengths of a benchmark.

    Attributes:
        prompt_tokens: number of random tokens in the prompt.
        new_tokens: number of decoded tokens after the first.
        rounds: number of repetitions.
    """

    prompt_tokens: int
    new_tokens: int
    rounds: int


@dataclass(frozen=True)
class BenchmarkReport:
    """Medians over the rounds; decode rates count the tokens after the first.

    `bandwidth_share` is decode rate * `weight_bytes_per_token` / `read_bytes_per_second`. The last
    two are `None` on a GPU, whose memory bandwidth is not measured.
    """

    decode_tokens_per_second: float
    decode_tokens_per_second_min: float
    decode_tokens_per_second_max: float
    prefill_tokens_per_second: float
    time_to_first_token_ms: float
    peak_rss_bytes: int
    weight_bytes_per_token: int
    read_bytes_per_second: float | None
    bandwidth_share: float | None


@dataclass(frozen=True)
class _Round:
    prefill_seconds: float
    decode_seconds: float


def run_benchmark(
    model: Model, plan: BenchmarkPlan, progress: Progress = ignore_progress
) -> BenchmarkReport:
    """Measure a model.

    Args:
        model: the loaded model.
        plan: the lengths and the number of rounds.
        progress: called with ("measuring", rounds done, rounds in all).

    Raises:
        PromptError: prompt and answer together are longer than the context.
    """
    check_length(plan.prompt_tokens + plan.new_tokens, model.manifest.model)
    decoder = Decoder(model.graph, model.manifest.model)
    progress("measuring", 0, plan.rounds)
    _run_round(model, decoder, plan)  # warm-up: allocates buffers and reads pages
    rounds = []
    for done in range(plan.rounds):
        rounds.append(_run_round(model, decoder, plan))
        progress("measuring", done + 1, plan.rounds)
    return _summarize(model, plan, rounds)


def count_weight_bytes_per_token(manifest: Manifest) -> int:
    """Return the bytes of weights that one decode step reads.

    Only one row is read of the embedding and of the rotary tables, so they do not count. Tied
    embeddings, where the manifest has no tensor for the head, are read completely.
    """
    is_tied = not any(entry.name.startswith(_HEAD_NAMES) for entry in manifest.tensors)
    tables = _ROTARY_NAMES if is_tied else _ROTARY_NAMES + _EMBEDDING_NAMES
    unread = sum(e.size_bytes for e in manifest.tensors if e.name.startswith(tables))
    return manifest.files[DATA_NAME].size_bytes - unread


def _run_round(model: Model, decoder: Decoder, plan: BenchmarkPlan) -> _Round:
    vocab_size = model.manifest.model.tokenizer_vocab_size
    prompt = np.random.default_rng(0).integers(vocab_size, size=plan.prompt_tokens).tolist()
    decoder.truncate(0)
    decoder.reserve(plan.prompt_tokens + plan.new_tokens)
    start = time.perf_counter()
    token = find_largest(decoder.prefill(prompt)[:vocab_size])
    middle = time.perf_counter()
    for _ in range(plan.new_tokens):
        if decoder.chooses_greedily:
            token, _ = decoder.choose_next(token)
        else:
            token = find_largest(decoder.append((token,))[-1, :vocab_size])
    return _Round(middle - start, time.perf_counter() - middle)


def _summarize(model: Model, plan: BenchmarkPlan, rounds: list[_Round]) -> BenchmarkReport:
    peak_rss_bytes = read_peak_memory_bytes()  # before the bandwidth buffer
    decode_rates = [plan.new_tokens / one.decode_seconds for one in rounds]
    decode_rate = statistics.median(decode_rates)
    prefill_seconds = statistics.median(one.prefill_seconds for one in rounds)
    weight_bytes = count_weight_bytes_per_token(model.manifest)
    read_rate = None
    if model.graph.device == "cpu":
        read_rate = measure_read_bytes_per_second(model.graph.threads)
    return BenchmarkReport(
        decode_tokens_per_second=decode_rate,
        decode_tokens_per_second_min=min(decode_rates),
        decode_tokens_per_second_max=max(decode_rates),
        prefill_tokens_per_second=plan.prompt_tokens / prefill_seconds,
        time_to_first_token_ms=prefill_seconds * 1000,
        peak_rss_bytes=peak_rss_bytes,
        weight_bytes_per_token=weight_bytes,
        read_bytes_per_second=read_rate,
        bandwidth_share=None if read_rate is None else decode_rate * weight_bytes / read_rate,
    )
