"""An int8 KV cache and a float32 one: what int8 costs in KL divergence, and what it does to speed.

Quality is measured on the sample checkpoint, unquantized, so that nothing but the cache differs.
Speed is measured on random weights, with both folders in one process, in turn: chunks of 512 prompt
tokens, and single tokens, after a number of others. Ratios are of pairs, int8 over float32.
"""

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.checkpoints import SHAPES
from benchmarks.command import Figures, benchmark, rounds_option, say, shape_option, work_option
from benchmarks.exports import BLOCK_128, SAMPLE, export, provide_checkpoint
from benchmarks.measurement import as_json, compare_pairs, summarize
from benchmarks.processes import run_child
from glm_runtime import load
from glm_runtime.graph.decoding import Decoder

_KINDS = ("float", "int8")
_PASTS = (0, 2048, 6144)
_CHUNK = 512
_STEPS = 8
# Keys and values of random weights are as large on any text.
_CALIBRATION = ("--calibration-tokens", "1024")


def measure_quality(work: Path, max_tokens: int) -> dict[str, dict[str, float]]:
    """The sample's folders against the original.

    Raises:
        ChildError: an export or an evaluation failed.
    """
    found = {}
    for kind in _KINDS:
        folder = work / f"sample-{kind}"
        export(SAMPLE, folder, "--kv-cache", kind, "--quant", "none", "--verify", "none", "--force")
        say(f"evaluating the sample with a {kind} cache")
        entry = "from glm_export.evaluate_cli import main; main()"
        choices = ["--max-tokens", str(max_tokens), "--json"]
        command = [sys.executable, "-c", entry, str(SAMPLE), str(folder), *choices]
        figures = run_child(command).read_json()
        found[kind] = {key: figures[key] for key in ("kl_mean", "kl_p99", "top1_agreement")}
    return found


def measure_speed(work: Path, shape: str, rounds: int) -> dict[str, dict[str, Any]]:
    """Milliseconds of a chunk and of a token after a number of others, pair by pair.

    Raises:
        ChildError: an export failed.
    """
    decoders = {}
    with provide_checkpoint(SHAPES[shape], work) as checkpoint:
        for kind in _KINDS:
            folder = work / f"{shape}-{kind}"
            export(checkpoint, folder, "--kv-cache", kind, *BLOCK_128, *_CALIBRATION, "--force")
            model = load(folder, device="cpu")
            decoders[kind] = Decoder(model.graph, model.manifest.model)
    found: dict[str, dict[str, Any]] = {}
    room = SHAPES[shape].context_length - _CHUNK - _STEPS
    for past in [past for past in _PASTS if past <= room]:
        times: dict[str, dict[str, list[float]]] = {
            task: {kind: [] for kind in _KINDS} for task in ("chunk", "token")
        }
        for index in range(-1, rounds):
            for kind, decoder in decoders.items():
                chunk, token = _time(decoder, past)
                if index >= 0:
                    times["chunk"][kind].append(chunk)
                    times["token"][kind].append(token)
        for task, of_task in times.items():
            found[f"{task} after {past}"] = _summarize(of_task)
    return found


def _time(decoder: Decoder, past: int) -> tuple[float, float]:
    """Milliseconds of one chunk after `past` tokens, and of one token after that."""
    tokens = np.random.Generator(np.random.PCG64(past)).integers(0, 1000, _CHUNK).tolist()
    decoder.truncate(past)
    while decoder.length < past:
        decoder.append(tokens)
    started = time.perf_counter()
    decoder.append(tokens)
    middle = time.perf_counter()
    for token in tokens[:_STEPS]:
        decoder.append([token])
    ended = time.perf_counter()
    return 1e3 * (middle - started), 1e3 * (ended - middle) / _STEPS


def _summarize(times: Mapping[str, list[float]]) -> dict[str, Any]:
    figures: dict[str, Any] = {f"{kind}_ms": as_json(summarize(times[kind])) for kind in _KINDS}
    return figures | {"ratio": as_json(compare_pairs(times["int8"], times["float"]))}


def report(quality: Mapping[str, Mapping[str, float]], speed: Mapping[str, dict[str, Any]]) -> None:
    """Print both tables."""
    print(f"\n{'cache':8} {'KL mean':>10} {'KL p99':>10} {'top-1':>8}")
    for kind, figures in quality.items():
        kl, tail, top = (figures[key] for key in ("kl_mean", "kl_p99", "top1_agreement"))
        print(f"{kind:8} {kl:>10.2e} {tail:>10.2e} {top:>8.2%}")
    print(f"\n{'task':18} {'float ms':>10} {'int8 ms':>10} {'ratio':>8}")
    for task, found in speed.items():
        medians = [found[key]["median"] for key in ("float_ms", "int8_ms", "ratio")]
        print(f"{task:18} {medians[0]:>10.1f} {medians[1]:>10.1f} {medians[2]:>8.2f}")


@benchmark(
    "onnxruntime",
    "numpy",
    examples="""\
python -m benchmarks.speed kv-cache
python -m benchmarks.speed kv-cache --shape 9b --work work""",
)
@shape_option
@rounds_option(5)
@click.option(
    "--max-tokens", default=40_000, show_default=True, help="Number of evaluation tokens."
)
@work_option
def kv_cache(shape: str, rounds: int, max_tokens: int, work: Path) -> Figures:
    """Measure the quality and the speed of an int8 KV cache beside a float32 one."""
    quality = measure_quality(work, max_tokens)
    speed = measure_speed(work, shape, rounds)
    report(quality, speed)
    return {"quality": quality, "speed": speed}
