"""Decode and prefill: our runtime and onnxruntime-genai on the same folder.

Each loads the folder once in a process of its own, and they answer in turn. While one runs, the
threads of the other sleep. Decode is also given as a share of the memory bandwidth, which bounds
it, since every token reads every weight once. Read `processes.py` for what is timed.
"""

import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import click
import numpy as np

from benchmarks.checkpoints import SHAPES
from benchmarks.command import (
    Figures,
    benchmark,
    folder_option,
    rounds_option,
    say_round,
    shape_option,
    threads_option,
)
from benchmarks.exports import BLOCK_32, provide_folder
from benchmarks.measurement import as_json, compare_pairs, summarize
from benchmarks.processes import PAUSE_SECONDS, Answer, Worker
from benchmarks.runtimes import OURS, OURS_ON_SMALL_PAGES, THEIRS, start_worker
from glm_runtime.folder.manifest import Manifest, read_manifest
from glm_runtime.graph.machine import measure_read_bytes_per_second


@dataclass(frozen=True)
class Lengths:
    """Numbers of tokens: prompt and answer of a decode turn, and prompt of a prefill turn."""

    decode_prompt: int
    decode_tokens: int
    prefill_prompt: int


@dataclass(frozen=True)
class Plan:
    """Number of rounds and of threads, and the seed of the prompts."""

    rounds: int
    threads: int
    seed: int


@dataclass
class Results:
    """Answers of one runtime, one of each kind a round, and what loading it needed."""

    decode: list[Answer] = field(default_factory=list)
    prefill: list[Answer] = field(default_factory=list)
    load_seconds: float = 0.0
    peak_rss_bytes: int = 0

    @property
    def tokens(self) -> list[tuple[int, ...]]:
        """All answers in order."""
        return [answer.tokens for answer in (*self.decode, *self.prefill)]


def measure_decode(
    workers: list[Worker], manifest: Manifest, lengths: Lengths, plan: Plan
) -> tuple[list[Results], list[float]]:
    """Warm up, then take turns.

    Returns:
        The results of each worker, and the read rates in bytes/s: one before the first round and
        one after each.

    Raises:
        ChildError: a runtime failed.
    """
    random = np.random.default_rng(plan.seed)
    results = [Results(load_seconds=worker.load_seconds) for worker in workers]
    rates: list[float] = []
    for index in range(-1, plan.rounds):
        say_round(index, plan.rounds)
        prompt = _draw_prompt(random, manifest, lengths.decode_prompt)
        decode = _take_turns(workers, prompt, lengths.decode_tokens + 1)
        prompt = _draw_prompt(random, manifest, lengths.prefill_prompt)
        prefill = _take_turns(workers, prompt, 1)
        time.sleep(PAUSE_SECONDS)
        rates.append(measure_read_bytes_per_second(plan.threads))
        if index < 0:
            continue  # the first round allocates buffers and reads pages
        for result, one, other in zip(results, decode, prefill, strict=True):
            result.decode.append(one)
            result.prefill.append(other)
    return results, rates


def _take_turns(workers: list[Worker], prompt: list[int], num_tokens: int) -> list[Answer]:
    answers = []
    for worker in workers:
        time.sleep(PAUSE_SECONDS)
        answers.append(worker.ask(prompt, num_tokens))
    return answers


def _draw_prompt(random: np.random.Generator, manifest: Manifest, length: int) -> list[int]:
    """Draw tokens of text; the special ones end a vocabulary."""
    smallest_special = min(manifest.model.eos_token_ids)
    prompt: list[int] = random.integers(smallest_special, size=length).tolist()
    return prompt


def report(
    both: list[Results], manifest: Manifest, lengths: Lengths, read_rates: list[float]
) -> dict[str, object]:
    """Print the table of ours and theirs, and give the figures."""
    decode = [[answer.decode_rate for answer in result.decode] for result in both]
    prefill = [
        [lengths.prefill_prompt / answer.first_token_seconds for answer in result.prefill]
        for result in both
    ]
    bytes_per_token = count_bytes_per_token(manifest, lengths)
    # The better of the two rates around a round: the memory of a shared machine is not equally
    # fast for minutes (32 to 63 GB/s was seen within five).
    rates = [max(pair) for pair in pairwise(read_rates)]
    shares = [bytes_per_token * compare_pairs(one, rates).median for one in decode]
    print(f"\n{'':18}{'ours':>24}{THEIRS:>24}{'ratio of pairs':>24}  quartiles")
    figures: dict[str, object] = {
        "decode": _report_rates("decode tokens/s", decode),
        "prefill": _report_rates("prefill tokens/s", prefill),
        "bandwidth_share": _report_pair("bandwidth share", shares),
        "load_seconds": _report_pair("load seconds", [one.load_seconds for one in both]),
        "peak_rss_gb": _report_pair("peak memory GB", [one.peak_rss_bytes / 1e9 for one in both]),
        "bytes_per_token": bytes_per_token,
        "is_same_tokens": both[0].tokens == both[1].tokens,
    }
    read = summarize([rate / 1e9 for rate in read_rates])
    print(f"\nread rate {read.describe(1)} GB/s, {bytes_per_token / 1e6:.0f} MB per token")
    print(f"same tokens: {'yes' if figures['is_same_tokens'] else 'NO'}")
    return figures | {"read_gb_per_second": as_json(read)}


def count_bytes_per_token(manifest: Manifest, lengths: Lengths) -> int:
    """Bytes that one decode step reads: the weights once, and the keys and values so far.

    A step reads only one row of the embedding table and of the rotary tables (those without
    sources), so they are left out. Keys and values are those at the middle of the answer.
    """
    model = manifest.model
    is_tied = not any("lm_head" in tensor.name for tensor in manifest.tensors)
    weights = sum(
        tensor.size_bytes
        for tensor in manifest.tensors
        if tensor.sources and (is_tied or "embed_tokens" not in tensor.name)
    )
    middle = lengths.decode_prompt + lengths.decode_tokens // 2
    item_bytes = np.dtype(model.cache_dtype).itemsize
    cache = 2 * model.num_layers * model.num_kv_heads * model.head_dim * middle * item_bytes
    return weights + cache


def _report_rates(label: str, rates: list[list[float]]) -> dict[str, object]:
    first, second = (summarize(one) for one in rates)
    ratio = compare_pairs(*rates)
    print(
        f"{label:18}{first.describe(1):>24}{second.describe(1):>24}{ratio.describe(3):>24}"
        f"  {ratio.lower_quartile:.3f} - {ratio.upper_quartile:.3f}"
    )
    return {"ratio": as_json(ratio), "ours": as_json(first), "onnxruntime_genai": as_json(second)}


def _report_pair(label: str, values: list[float]) -> dict[str, float]:
    ours, theirs = (round(value, 3) for value in values)
    print(f"{label:18}{ours:>24}{theirs:>24}")
    return {"ours": ours, "onnxruntime_genai": theirs}


@benchmark(
    "onnxruntime",
    "onnxruntime-genai",
    "numpy",
    examples="""\
python -m benchmarks.speed decode
python -m benchmarks.speed decode --folder artifacts/glm4-int4 --rounds 9
python -m benchmarks.speed decode --no-huge-pages --decode-tokens 64""",
)
@folder_option
@shape_option
@rounds_option(7)
@threads_option
@click.option("--seed", default=0, show_default=True, help="Seed of the random prompts.")
@click.option(
    "--huge-pages/--no-huge-pages",
    default=True,
    show_default=True,
    help="Load our weights onto huge pages, as `glm-run chat` does.",
)
@click.option("--decode-prompt", default=32, show_default=True, help="Prompt tokens before decode.")
@click.option("--decode-tokens", default=128, show_default=True, help="Number of decoded tokens.")
@click.option("--prefill-prompt", default=512, show_default=True, help="Prompt tokens of prefill.")
def decode(
    folder: Path | None,
    shape: str,
    *,
    rounds: int,
    threads: int,
    seed: int,
    huge_pages: bool,
    **lengths: int,
) -> Figures:
    """Measure decode and prefill beside onnxruntime-genai on one folder."""
    sizes = Lengths(**lengths)
    systems = (OURS if huge_pages else OURS_ON_SMALL_PAGES, THEIRS)
    with provide_folder(folder, SHAPES[shape], *BLOCK_32) as found:
        manifest = read_manifest(found)
        with ExitStack() as stack:
            workers = [stack.enter_context(start_worker(one, found, threads)) for one in systems]
            results, rates = measure_decode(workers, manifest, sizes, Plan(rounds, threads, seed))
    for result, worker in zip(results, workers, strict=True):
        result.peak_rss_bytes = worker.peak_rss_bytes
    return report(results, manifest, sizes, rates)
