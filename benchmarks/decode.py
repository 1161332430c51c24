"""Decode and prefill: our runtime against onnxruntime-genai on the same folder.

    python benchmarks/decode.py [--folder DIR]

Both load the folder once, each in its own process, and answer in turn: ours, theirs, ours, theirs.
While one runs, the other's threads sleep. Besides: decode as a share of the memory bandwidth, which
bounds it, since every token reads every weight once. Read `answering.py` for what is timed.
"""

import argparse
import json
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from decode_report import Lengths, Results, report
from decode_worker import OURS, OURS_ON_SMALL_PAGES, THEIRS
from measurement import ChildError, describe_machine, run_child, show_machine
from random_checkpoint import write_checkpoint
from shapes import SHAPES
from workers import Answer, Worker

from glm_runtime.folder.manifest import Manifest, read_manifest
from glm_runtime.graph.bandwidth import measure_read_bytes_per_second
from glm_runtime.graph.machine import count_usable_cores

_PACKAGES = ("onnxruntime", "onnxruntime-genai", "numpy")
# ONNX Runtime's threads spin for some milliseconds after a run before they sleep.
_PAUSE_SECONDS = 0.5


@dataclass(frozen=True)
class Plan:
    """What to measure."""

    rounds: int
    threads: int
    seed: int
    has_huge_pages: bool
    lengths: Lengths


def measure(folder: Path, plan: Plan) -> tuple[list[Results], list[float]]:
    """Warm up, then take turns; gives the results of each system and the read rates in bytes/s.

    Raises:
        ChildError: a system failed.
    """
    manifest = read_manifest(folder)
    random = np.random.default_rng(plan.seed)
    systems = (OURS if plan.has_huge_pages else OURS_ON_SMALL_PAGES, THEIRS)
    results = [Results() for _ in systems]
    rates: list[float] = []
    with ExitStack() as stack:
        workers = [
            stack.enter_context(Worker.of_folder(name, folder, plan.threads)) for name in systems
        ]
        for index in range(-1, plan.rounds):
            _show_progress(index, plan.rounds)
            prompt = _draw_prompt(random, manifest, plan.lengths.decode_prompt)
            decode = _take_turns(workers, prompt, plan.lengths.decode_tokens + 1)
            prompt = _draw_prompt(random, manifest, plan.lengths.prefill_prompt)
            prefill = _take_turns(workers, prompt, 1)
            time.sleep(_PAUSE_SECONDS)
            rates.append(measure_read_bytes_per_second(plan.threads))
            if index < 0:
                continue  # the first round allocates buffers and reads pages
            for result, one, other in zip(results, decode, prefill, strict=True):
                result.decode.append(one)
                result.prefill.append(other)
    for result, worker in zip(results, workers, strict=True):
        result.load_seconds, result.peak_rss_bytes = worker.load_seconds, worker.peak_rss_bytes
    return results, rates


def _take_turns(workers: list[Worker], prompt: list[int], num_tokens: int) -> list[Answer]:
    answers = []
    for worker in workers:
        time.sleep(_PAUSE_SECONDS)
        answers.append(worker.ask(prompt, num_tokens))
    return answers


def _draw_prompt(random: np.random.Generator, manifest: Manifest, length: int) -> list[int]:
    """Tokens of text only: the special ones end a vocabulary."""
    smallest_special = min(manifest.model.eos_token_ids)
    prompt: list[int] = random.integers(smallest_special, size=length).tolist()
    return prompt


def _show_progress(index: int, rounds: int) -> None:
    name = "warming up" if index < 0 else f"round {index + 1} of {rounds}"
    print(name, file=sys.stderr, flush=True)


def export_folder(work: Path) -> Path:
    """Make the int4 folder of the 1.5 B shape, block size 32.

    Raises:
        ChildError: the export failed.
    """
    checkpoint, folder = work / "checkpoint", work / "int4"
    print("writing and exporting a random checkpoint", file=sys.stderr, flush=True)
    write_checkpoint(SHAPES["edge-1.5b"], checkpoint)
    settings = ["--method", "rtn", "--block-size", "32", "--verify", "tensors"]
    run_child([sys.executable, "-m", "glm_export", str(checkpoint), "-o", str(folder), *settings])
    return folder


def _parse_arguments() -> tuple[Path | None, Plan]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path, help="an exported folder; made if left out")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=count_usable_cores())
    parser.add_argument("--seed", type=int, default=0, help="of the prompts")
    parser.add_argument(
        "--huge-pages", action=argparse.BooleanOptionalAction, default=True, help="for ours"
    )
    parser.add_argument("--decode-prompt", type=int, default=32)
    parser.add_argument("--decode-tokens", type=int, default=128)
    parser.add_argument("--prefill-prompt", type=int, default=512)
    got = parser.parse_args()
    lengths = Lengths(got.decode_prompt, got.decode_tokens, got.prefill_prompt)
    return got.folder, Plan(got.rounds, got.threads, got.seed, got.huge_pages, lengths)


def main() -> None:
    """Entry point."""
    folder, plan = _parse_arguments()
    settings = {"threads": plan.threads, "rounds": plan.rounds, **vars(plan.lengths)}
    settings["has_huge_pages"] = plan.has_huge_pages
    machine = describe_machine(_PACKAGES)
    show_machine({**machine, **settings})
    with tempfile.TemporaryDirectory() as temporary:
        try:
            folder = folder or export_folder(Path(temporary))
            (ours, theirs), rates = measure(folder, plan)
        except (ChildError, OSError) as error:
            sys.exit(f"decode.py: {error}")
        figures = report(ours, theirs, read_manifest(folder), plan.lengths, rates)
    print(json.dumps({"benchmark": "decode", **settings, **figures, "machine": machine}))


if __name__ == "__main__":
    main()
