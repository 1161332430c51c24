"""Prompts of up to 32,000 tokens: seconds, peak memory, and how both grow; genai beside us.

    python benchmarks/long_prompt.py [--work DIR] [--lengths 2048,8192,32000]

The 1.5 B shape, int4 block 128, its context of 8,192 stretched by YaRN. Each prompt is read by a
process of its own, which answers with eight tokens; both runtimes read the same random tokens, in
turn. One round: the longest prompt takes minutes.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from decode_worker import OURS_ON_SMALL_PAGES, THEIRS
from export_memory import provide_checkpoint
from measurement import ChildError, describe_machine, run_child, show_machine
from shapes import SHAPES, Shape
from workers import Worker

from glm_runtime.graph.machine import count_usable_cores

_PACKAGES = ("onnxruntime", "onnxruntime-genai", "numpy")
_FACTOR = "4"
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


def measure(folder: Path, shape: Shape, lengths: Sequence[int], peer_most: int) -> list[Reading]:
    """All lengths, the runtimes in turn, theirs up to `peer_most` tokens; prints a row each.

    Raises:
        ChildError: a runtime could not load the folder or answer.
    """
    columns = f"{'tokens/s':>10}{'then ms a token':>17}{'peak GB':>9}"
    print(f"\n{'':18}{'tokens':>8}{'seconds':>10}{columns}")
    random = np.random.Generator(np.random.PCG64(0))
    found = []
    for length in lengths:
        prompt = random.integers(0, shape.first_special_id, length).tolist()
        for name, system in _SYSTEMS.items():
            if system == THEIRS and length > peer_most:
                continue
            one = _read(name, system, folder, prompt)
            rate = one.tokens / one.seconds
            print(
                f"{name:18}{length:>8}{one.seconds:>10.1f}{rate:>10.1f}{one.decode_ms:>17.1f}"
                f"{one.peak_rss_bytes / 1e9:>9.2f}",
                flush=True,
            )
            found.append(one)
    return found


def _read(name: str, system: str, folder: Path, prompt: list[int]) -> Reading:
    print(f"{name}: {len(prompt)} tokens", file=sys.stderr, flush=True)
    with Worker.of_folder(system, folder, count_usable_cores()) as worker:
        answer = worker.ask(prompt, _ANSWER)
    milliseconds = 1e3 * answer.decode_seconds / (_ANSWER - 1)
    seconds = answer.first_token_seconds
    return Reading(name, len(prompt), seconds, milliseconds, worker.peak_rss_bytes)


def report(readings: Sequence[Reading], shape: Shape) -> dict[str, object]:
    """Ratios, and bytes a token of the prompt between the shortest and the longest."""
    cache_bytes = 2 * 4 * shape.num_layers * shape.num_kv_heads * shape.head_dim
    ours, theirs = ([r for r in readings if r.system == name] for name in _SYSTEMS)
    figures: dict[str, object] = {"cache_bytes_per_token": cache_bytes}
    print(f"\nkeys and values: {cache_bytes:,} bytes a token")
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


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--shape", choices=sorted(SHAPES), default="edge-1.5b")
    parser.add_argument("--lengths", default="2048,8192,32000", help="rising, with commas between")
    parser.add_argument("--peer-most", type=int, default=8192, help="0 leaves the peer out")
    parser.add_argument("--work", type=Path, help="keeps the checkpoint")
    arguments = parser.parse_args()
    shape, lengths = SHAPES[arguments.shape], [int(n) for n in arguments.lengths.split(",")]
    machine = describe_machine(_PACKAGES)
    show_machine(machine)
    with tempfile.TemporaryDirectory(dir=arguments.work) as scratch:
        folder, work = Path(scratch) / "int4", arguments.work or Path(scratch)
        try:
            with provide_checkpoint(shape, work) as checkpoint:
                recipe = ["--method", "rtn", "--block-size", "128", "--verify", "none"]
                rope = ["--rope-scaling", "yarn", "--factor", _FACTOR]
                command = [sys.executable, "-m", "glm_export", str(checkpoint), "-o", str(folder)]
                run_child([*command, *recipe, *rope])
            figures = report(measure(folder, shape, lengths, arguments.peer_most), shape)
        except (ChildError, OSError) as error:
            sys.exit(f"long_prompt.py: {error}")
    print(json.dumps({"benchmark": "long_prompt", **figures, "machine": machine}))


if __name__ == "__main__":
    main()
