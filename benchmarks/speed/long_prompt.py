"""Prompts of up to 32,000 tokens: time and peak memory of our runtime and of onnxruntime-genai.

The context of the shape is stretched by YaRN. Each prompt is read by a process of its own, which
answers with eight tokens. Both runtimes read the same random tokens in turn, once: the longest
prompt takes minutes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from benchmarks.checkpoints import SHAPES, Shape
from benchmarks.command import (
    Figures,
    benchmark,
    say,
    shape_option,
    split_names,
    threads_option,
    work_option,
)
from benchmarks.exports import BLOCK_128, export, provide_checkpoint
from benchmarks.processes import Worker
from benchmarks.runtimes import OURS_ON_SMALL_PAGES, THEIRS, start_worker

_YARN = ("--rope-scaling", "yarn", "--factor", "4")
_ANSWER = 8
_SYSTEMS = {"glm-run": OURS_ON_SMALL_PAGES, "onnxruntime-genai": THEIRS}


@dataclass(frozen=True)
class Reading:
    """One prompt read by one runtime."""

    system: str
    tokens: int
    seconds: float
    decode_ms: float
    peak_rss_bytes: int


def measure(
    folder: Path, prompts: Sequence[list[int]], peer_most: int, threads: int
) -> list[Reading]:
    """Read all prompts, theirs up to `peer_most` tokens, and print a row for each.

    Raises:
        ChildError: a runtime could not load the folder or answer.
    """
    columns = f"{'tokens/s':>10}{'then ms/token':>17}{'peak GB':>9}"
    print(f"\n{'':18}{'tokens':>8}{'seconds':>10}{columns}")
    found = []
    for prompt in prompts:
        length = len(prompt)
        for name, system in _SYSTEMS.items():
            if system == THEIRS and length > peer_most:
                continue
            one = _read(name, start_worker(system, folder, threads), prompt)
            rate = one.tokens / one.seconds
            print(
                f"{name:18}{length:>8}{one.seconds:>10.1f}{rate:>10.1f}{one.decode_ms:>17.1f}"
                f"{one.peak_rss_bytes / 1e9:>9.2f}",
                flush=True,
            )
            found.append(one)
    return found


def _read(name: str, loaded: Worker, prompt: list[int]) -> Reading:
    say(f"{name}: {len(prompt)} tokens")
    with loaded as worker:
        answer = worker.ask(prompt, _ANSWER)
    milliseconds = 1e3 * answer.decode_seconds / (_ANSWER - 1)
    seconds = answer.first_token_seconds
    return Reading(name, len(prompt), seconds, milliseconds, worker.peak_rss_bytes)


def report(readings: Sequence[Reading], shape: Shape) -> dict[str, object]:
    """Print ratios, and the memory growth per prompt token from the shortest to the longest."""
    cache_bytes = 2 * 4 * shape.num_layers * shape.num_kv_heads * shape.head_dim
    ours, theirs = ([r for r in readings if r.system == name] for name in _SYSTEMS)
    figures: dict[str, object] = {"cache_bytes_per_token": cache_bytes}
    print(f"\nkeys and values: {cache_bytes:,} bytes per token")
    for one, other in zip(ours, theirs, strict=False):  # theirs may end earlier
        seconds = one.seconds / other.seconds
        memory = one.peak_rss_bytes / other.peak_rss_bytes
        print(f"ours over theirs at {one.tokens}: seconds {seconds:.3f}, memory {memory:.3f}")
        figures[f"ratio at {one.tokens}"] = {"seconds": seconds, "memory": memory}
    for of in filter(None, (ours, theirs)):
        further = max(1, of[-1].tokens - of[0].tokens)
        growth = (of[-1].peak_rss_bytes - of[0].peak_rss_bytes) / further
        print(f"{of[0].system}: {growth:,.0f} bytes more memory for each further token")
        figures[of[0].system] = {
            "bytes_per_token": growth,
            "readings": [
                {
                    "tokens": r.tokens,
                    "seconds": round(r.seconds, 2),
                    "decode_ms": round(r.decode_ms, 2),
                    "peak_rss_bytes": r.peak_rss_bytes,
                }
                for r in of
            ],
        }
    return figures


@benchmark(
    "onnxruntime",
    "onnxruntime-genai",
    "numpy",
    examples="""\
python -m benchmarks.speed long-prompt
python -m benchmarks.speed long-prompt --lengths 2048,8192 --peer-most 0""",
)
@shape_option
@click.option(
    "--lengths",
    callback=split_names,
    default="2048,8192,32000",
    show_default=True,
    help="Numbers of prompt tokens, rising, with commas between.",
)
@click.option(
    "--peer-most",
    default=8192,
    show_default=True,
    help="Longest prompt that onnxruntime-genai reads; 0 leaves it out.",
)
@threads_option
@work_option
def long_prompt(
    shape: str, lengths: list[str], peer_most: int, threads: int, work: Path
) -> Figures:
    """Measure time and memory of long prompts beside onnxruntime-genai."""
    sizes = SHAPES[shape]
    random = np.random.Generator(np.random.PCG64(0))
    prompts = [random.integers(0, sizes.first_special_id, int(n)).tolist() for n in lengths]
    folder = work / f"{shape}-yarn"
    with provide_checkpoint(sizes, work) as checkpoint:
        export(checkpoint, folder, *BLOCK_128, *_YARN, "--force")
    return report(measure(folder, prompts, peer_most, threads), sizes)
