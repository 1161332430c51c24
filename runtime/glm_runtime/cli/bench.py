"""`glm-run bench` measures how fast a model runs on this machine."""

import dataclasses
import json
import time
from pathlib import Path

import click

from glm_runtime.benchmark import BenchmarkPlan, BenchmarkReport, run_benchmark
from glm_runtime.cli.failure import debug_option
from glm_runtime.cli.options import (
    MachineOptions,
    count_option,
    folder_argument,
    json_option,
    load_for_command,
    machine_options,
    show_examples,
)
from glm_runtime.cli.progress import quiet_option, show_progress
from glm_runtime.cli.terminal import format_bytes


@click.command(
    epilog=show_examples(
        "glm-run bench artifacts/glm4-int4",
        "glm-run bench artifacts/glm4-int4 --prompt-tokens 512 --new-tokens 128 --rounds 7",
        "glm-run bench artifacts/glm4-int4 --threads 1 --json",
    )
)
@folder_argument
@count_option("--prompt-tokens", "Number of random tokens in the prompt.", 128)
@count_option("--new-tokens", "Number of decoded tokens after the first.", 64)
@count_option("--rounds", "Number of repetitions, of which the median is printed.", 5)
@machine_options
@json_option
@quiet_option
@debug_option
def bench(
    folder: Path,
    prompt_tokens: int,
    new_tokens: int,
    rounds: int,
    machine: MachineOptions,
    is_json: bool,
) -> None:
    """Measure the speed of a model on this machine.

    The result has prefill and decode rates, time to first token, load time, peak memory, and the
    share of the memory bandwidth that decoding reaches.
    """
    plan = BenchmarkPlan(prompt_tokens, new_tokens, rounds)
    start = time.perf_counter()
    model = load_for_command(folder, machine, is_long_lived=True)
    load_seconds = time.perf_counter() - start
    with show_progress() as progress:
        report = run_benchmark(model, plan, progress)
    content = dataclasses.asdict(report) | dataclasses.asdict(plan)
    content |= {
        "load_seconds": load_seconds,
        "device": model.graph.device,
        "threads": model.graph.threads,
    }
    click.echo(json.dumps(content) if is_json else _describe(report, load_seconds))


def _describe(report: BenchmarkReport, load_seconds: float) -> str:
    lines = [
        f"decode       {report.decode_tokens_per_second:.1f} tokens/s "
        f"({report.decode_tokens_per_second_min:.1f} to "
        f"{report.decode_tokens_per_second_max:.1f})",
        f"prefill      {report.prefill_tokens_per_second:.1f} tokens/s",
        f"first token  {report.time_to_first_token_ms:.0f} ms",
        f"load         {load_seconds:.2f} s",
        f"peak memory  {format_bytes(report.peak_rss_bytes)}",
    ]
    if report.bandwidth_share is not None and report.read_bytes_per_second is not None:
        lines.append(
            f"bandwidth    {report.bandwidth_share:.0%} of "
            f"{format_bytes(report.read_bytes_per_second)}/s, reading "
            f"{format_bytes(report.weight_bytes_per_token)} per token"
        )
    return "\n".join(lines)
