"""Our runtime beside onnxruntime-genai, llama.cpp and OpenVINO GenAI: one checkpoint, 4 bits.

The checkpoint is converted by each system's own tools. Every system runs in a process of its own
with as many threads, and they take turns: decode, prefill 512 and 2,048, round by round. Then each
is started anew, with its file warm, up to its first token. Ratios are of pairs, of the first system
over each other one.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np

from benchmarks.checkpoints import SHAPES
from benchmarks.command import (
    Figures,
    benchmark,
    rounds_option,
    say,
    say_round,
    shape_option,
    split_names,
    threads_option,
    work_option,
)
from benchmarks.exports import BLOCK_32, BLOCK_128, count_bytes, export, provide_checkpoint
from benchmarks.measurement import Spread, as_json, compare_pairs, summarize
from benchmarks.peers.environments import provide_python
from benchmarks.processes import PAUSE_SECONDS, Answer, Worker, find_module, run_child
from benchmarks.runtimes import OURS, OURS_PREPARED, THEIRS, command_of

_PROMPTS = {"decode": 32, "prefill 512": 512, "prefill 2048": 2048}
_DECODE_TOKENS = 128
_CONTEXT = 2304  # what a peer is asked to make room for
# Smaller than the first special token of every shape.
_TEXT_TOKENS = 1000


@dataclass(frozen=True)
class System:
    """One row of the table.

    Attributes:
        name: its name in the table.
        make: converts the checkpoint to a path in the work folder, unless it is there.
        command: (path, threads) -> the command of its worker.
    """

    name: str
    make: Callable[[Path, Path], Path]
    command: Callable[[Path, int], list[str]]


@dataclass
class Results:
    """Measurements of one system, one a round."""

    size_bytes: int = 0
    answers: dict[str, list[Answer]] = field(default_factory=lambda: {k: [] for k in _PROMPTS})
    starts: list[float] = field(default_factory=list)
    peak_rss_bytes: int = 0

    @property
    def rates(self) -> dict[str, list[float]]:
        """Tokens per second of each kind of turn."""
        found = {"decode": [answer.decode_rate for answer in self.answers["decode"]]}
        for kind in ("prefill 512", "prefill 2048"):
            seconds = [answer.first_token_seconds for answer in self.answers[kind]]
            found[kind] = [_PROMPTS[kind] / one for one in seconds]
        return found


def _export(block_size: int) -> Callable[[Path, Path], Path]:
    def make(checkpoint: Path, work: Path) -> Path:
        folder = work / f"ours-b{block_size}"
        if not folder.is_dir():
            export(checkpoint, folder, *(BLOCK_32 if block_size == 32 else BLOCK_128))
        return folder

    return make


def _convert_to_gguf(file_type: str) -> Callable[[Path, Path], Path]:
    def make(checkpoint: Path, work: Path) -> Path:
        target = work / f"{file_type}.gguf"
        if not target.exists():
            tool = find_module("peers.llama_cpp", provide_python(work, "llama-cpp"))
            floats = work / "floats.gguf"
            if not floats.exists():
                run_child([*tool, "convert", str(checkpoint), str(floats)])
            run_child([*tool, "quantize", str(floats), str(target), file_type])
        return target

    return make


def _convert_to_openvino(checkpoint: Path, work: Path) -> Path:
    folder = work / "openvino-int4"
    if not (folder / "openvino_model.bin").exists():
        tool = provide_python(work, "openvino").with_name("optimum-cli")
        settings = ["--task", "text-generation-with-past", "--weight-format", "int4"]
        settings += ["--group-size", "128", "--ratio", "1.0"]
        command = ["export", "openvino", "--model", str(checkpoint), *settings, str(folder)]
        run_child([str(tool), *command])
    return folder


def _run_ours(system: str) -> Callable[[Path, int], list[str]]:
    return lambda path, threads: command_of(system, path, threads)


def _run_llama(path: Path, threads: int) -> list[str]:
    worker = find_module("peers.llama_cpp", path.with_name("llama-cpp-venv") / "bin/python")
    return [*worker, "serve", str(path), str(threads), str(_CONTEXT)]


def _run_openvino(path: Path, threads: int) -> list[str]:
    worker = find_module("peers.openvino", path.with_name("openvino-venv") / "bin/python")
    return [*worker, str(path), str(threads)]


SYSTEMS: Mapping[str, System] = {
    system.name: system
    for system in (
        System("ours-b128", _export(128), _run_ours(OURS)),
        System("ours-b128-prepared", _export(128), _run_ours(OURS_PREPARED)),
        System("ours-b32", _export(32), _run_ours(OURS)),
        System("genai-b128", _export(128), _run_ours(THEIRS)),
        System("llama-Q4_0", _convert_to_gguf("Q4_0"), _run_llama),
        System("llama-Q4_K_M", _convert_to_gguf("Q4_K_M"), _run_llama),
        System("openvino", _convert_to_openvino, _run_openvino),
    )
}


def measure(
    systems: list[System], paths: list[Path], threads: int, rounds: int
) -> dict[str, Results]:
    """Take turns after a warm-up round, then start each system anew.

    Raises:
        ChildError: a system failed.
    """
    random = np.random.default_rng(0)
    figures = {system.name: Results(count_bytes(path)) for system, path in _pair(systems, paths)}
    with ExitStack() as stack:
        workers = [
            stack.enter_context(Worker(system.name, system.command(path, threads)))
            for system, path in _pair(systems, paths)
        ]
        for index in range(-1, rounds):
            say_round(index, rounds)
            for kind, length in _PROMPTS.items():
                prompt = random.integers(_TEXT_TOKENS, size=length).tolist()
                for worker in workers:
                    time.sleep(PAUSE_SECONDS)
                    answer = worker.ask(prompt, _DECODE_TOKENS + 1 if kind == "decode" else 1)
                    if index >= 0:
                        figures[worker.system].answers[kind].append(answer)
    for worker in workers:
        figures[worker.system].peak_rss_bytes = worker.peak_rss_bytes
    for index in range(rounds):
        say(f"start {index + 1} of {rounds}")
        for system, path in _pair(systems, paths):
            figures[system.name].starts.append(_start(system, path, threads))
    return figures


def _pair(systems: list[System], paths: list[Path]) -> list[tuple[System, Path]]:
    return list(zip(systems, paths, strict=True))


def _start(system: System, path: Path, threads: int) -> float:
    """Seconds from starting the process to the first token of a short prompt."""
    time.sleep(PAUSE_SECONDS)
    started = time.perf_counter()
    with Worker(system.name, system.command(path, threads)) as worker:
        worker.ask([5, 6, 7, 8], 1)
        return time.perf_counter() - started


def report(figures: Mapping[str, Results]) -> dict[str, object]:
    """Print the table and give the figures."""
    first = next(iter(figures.values()))
    names = ("decode", "prefill 512", "prefill 2048", "start s", "peak GB", "file GB")
    print(f"\n{'system':20}" + "".join(f"{name:>24}" for name in names))
    found: dict[str, object] = {}
    for name, one in figures.items():
        rates = {kind: summarize(values) for kind, values in one.rates.items()}
        start = summarize(one.starts)
        cells = [rates[kind].describe(1) for kind in _PROMPTS] + [start.describe(2)]
        cells += [f"{one.peak_rss_bytes / 1e9:.2f}", f"{one.size_bytes / 1e9:.3f}"]
        print(f"{name:20}" + "".join(f"{cell:>24}" for cell in cells))
        ratios: dict[str, Spread] = {
            kind: compare_pairs(first.rates[kind], one.rates[kind]) for kind in _PROMPTS
        }
        ratios["start"] = compare_pairs(one.starts, first.starts)
        cells = [ratios[kind].describe(2) for kind in (*_PROMPTS, "start")]
        print(f"{'  ours times':20}" + "".join(f"{cell:>24}" for cell in cells))
        found[name] = {
            "tokens_per_second": {kind: as_json(spread) for kind, spread in rates.items()},
            "start_seconds": as_json(start),
            "peak_rss_bytes": one.peak_rss_bytes,
            "size_bytes": one.size_bytes,
            "ours_times": {kind: as_json(spread) for kind, spread in ratios.items()},
        }
    return found


@benchmark(
    "onnxruntime",
    "onnxruntime-genai",
    "numpy",
    examples="""\
python -m benchmarks.peers --work work
python -m benchmarks.peers --work work --systems ours-b128,genai-b128 --rounds 3""",
)
@click.option(
    "--systems",
    "names",
    callback=split_names,
    default=",".join(SYSTEMS),
    show_default=True,
    help="Systems to measure, with commas between. The others are compared with the first.",
)
@shape_option
@rounds_option(5)
@threads_option
@work_option
def peers(names: list[str], shape: str, rounds: int, threads: int, work: Path) -> Figures:
    """Measure decode, prefill, start, memory and file size beside the peers.

    Keep --work: the peers' environments and files in it take 14 GB and some minutes to make.
    """
    unknown = sorted(set(names) - set(SYSTEMS))
    if unknown:
        raise click.UsageError(f"--systems: {unknown[0]!r} is none of {', '.join(SYSTEMS)}.")
    systems = [SYSTEMS[name] for name in names]
    with provide_checkpoint(SHAPES[shape], work) as checkpoint:
        paths = [system.make(checkpoint, work) for system in systems]
    return {"systems": report(measure(systems, paths, threads, rounds))}


if __name__ == "__main__":
    peers(prog_name="python -m benchmarks.peers")
