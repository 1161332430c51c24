"""Our runtime beside onnxruntime-genai, llama.cpp and OpenVINO GenAI: one checkpoint, 4 bits.

    python benchmarks/peers.py --work DIR [--rounds N] [--systems ours-b128,llama-Q4_0,...]

The 1.5 B shape, converted by each system's own tools into DIR (kept, with the peers' environments).
Every system runs in a process of its own with as many threads, and they take turns: decode, prefill
512 and 2048, round by round; then each is started anew, its file warm, to its first token. Figures
are medians; ratios are of our first system over each other one, of pairs.
"""

import argparse
import json
import sys
import time
import venv
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from export_memory import provide_checkpoint
from measurement import (
    ChildError,
    Spread,
    as_json,
    compare_pairs,
    describe_machine,
    run_child,
    show_machine,
    summarize,
)
from shapes import SHAPES
from workers import Answer, Worker

from glm_runtime.graph.machine import count_usable_cores

_HERE = Path(__file__).parent
_PEERS = _HERE / "peers"
_PACKAGES = ("onnxruntime", "onnxruntime-genai", "numpy")
_PROMPTS = {"decode": 32, "prefill 512": 512, "prefill 2048": 2048}
_DECODE_TOKENS = 128
_CONTEXT = 2304  # what a peer is asked to make room for
_PAUSE_SECONDS = 0.5  # threads spin for some milliseconds after a run before they sleep
_FIRST_SPECIAL = SHAPES["edge-1.5b"].first_special_id


@dataclass(frozen=True)
class System:
    """One row of the table.

    Attributes:
        name: of it.
        make: converts the checkpoint into a path, unless it is there.
        command: (path, threads) -> what to start.
    """

    name: str
    make: Callable[[Path, Path], Path]
    command: Callable[[Path, int], list[str]]


@dataclass
class Figures:
    """What one system showed, round by round."""

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
            settings = ["--method", "rtn", "--block-size", str(block_size), "--verify", "none"]
            command = ["-m", "glm_export", str(checkpoint), "-o", str(folder), *settings]
            run_child([sys.executable, *command])
        return folder

    return make


def _provide_python(work: Path, name: str) -> Path:
    """An environment for a peer; gives its Python."""
    python = work / f"{name}-venv" / "bin/python"
    if not python.exists():
        print(f"installing {name} into an environment of its own", file=sys.stderr, flush=True)
        venv.create(python.parents[1], with_pip=True)
        requirements = str(_PEERS / f"{name}-requirements.txt")
        run_child([str(python), "-m", "pip", "install", "--quiet", "-r", requirements])
        # Some builds of it do not go with a CPU build of torch; nothing here needs it.
        run_child([str(python), "-m", "pip", "uninstall", "--quiet", "--yes", "torchvision"])
    return python


def _convert_to_gguf(file_type: str) -> Callable[[Path, Path], Path]:
    def make(checkpoint: Path, work: Path) -> Path:
        target = work / f"{file_type}.gguf"
        if not target.exists():
            python, script = str(_provide_python(work, "llama-cpp")), str(_PEERS / _LLAMA_TOOL)
            floats = work / "floats.gguf"
            if not floats.exists():
                run_child([python, script, "convert", str(checkpoint), str(floats)])
            run_child([python, script, "quantize", str(floats), str(target), file_type])
        return target

    return make


_LLAMA_TOOL = "llama_quantizer.py"


def _convert_to_openvino(checkpoint: Path, work: Path) -> Path:
    folder = work / "openvino-int4"
    if not (folder / "openvino_model.bin").exists():
        tool = _provide_python(work, "openvino").with_name("optimum-cli")
        settings = ["--task", "text-generation-with-past", "--weight-format", "int4"]
        settings += ["--group-size", "128", "--ratio", "1.0"]
        command = ["export", "openvino", "--model", str(checkpoint), *settings, str(folder)]
        run_child([str(tool), *command])
    return folder


def _run_ours(kind: str) -> Callable[[Path, int], list[str]]:
    script = str(_HERE / "decode_worker.py")
    return lambda path, threads: [sys.executable, script, kind, str(path), str(threads)]


def _run_llama(path: Path, threads: int) -> list[str]:
    python = str(path.with_name("llama-cpp-venv") / "bin/python")
    return [python, str(_PEERS / "llama_server.py"), str(path), str(threads), str(_CONTEXT)]


def _run_openvino(path: Path, threads: int) -> list[str]:
    python = str(path.with_name("openvino-venv") / "bin/python")
    return [python, str(_PEERS / "openvino_server.py"), str(path), str(threads)]


SYSTEMS: Mapping[str, System] = {
    system.name: system
    for system in (
        System("ours-b128", _export(128), _run_ours("glm_runtime")),
        System("ours-b128-prepared", _export(128), _run_ours("glm_runtime_prepared")),
        System("ours-b32", _export(32), _run_ours("glm_runtime")),
        System("genai-b128", _export(128), _run_ours("onnxruntime_genai")),
        System("llama-Q4_0", _convert_to_gguf("Q4_0"), _run_llama),
        System("llama-Q4_K_M", _convert_to_gguf("Q4_K_M"), _run_llama),
        System("openvino", _convert_to_openvino, _run_openvino),
    )
}


def measure(
    systems: list[System], paths: list[Path], threads: int, rounds: int
) -> dict[str, Figures]:
    """Take turns, after a round to warm up; then start each anew.

    Raises:
        ChildError: a system failed.
    """
    random = np.random.default_rng(0)
    figures = {system.name: Figures(_count_bytes(path)) for system, path in _pair(systems, paths)}
    with ExitStack() as stack:
        workers = [
            stack.enter_context(Worker(system.name, system.command(path, threads)))
            for system, path in _pair(systems, paths)
        ]
        for index in range(-1, rounds):
            _say("warming up" if index < 0 else f"round {index + 1} of {rounds}")
            for kind, length in _PROMPTS.items():
                prompt = random.integers(_FIRST_SPECIAL, size=length).tolist()
                for worker in workers:
                    time.sleep(_PAUSE_SECONDS)
                    answer = worker.ask(prompt, _DECODE_TOKENS + 1 if kind == "decode" else 1)
                    if index >= 0:
                        figures[worker.system].answers[kind].append(answer)
    for worker in workers:
        figures[worker.system].peak_rss_bytes = worker.peak_rss_bytes
    for index in range(rounds):
        _say(f"start {index + 1} of {rounds}")
        for system, path in _pair(systems, paths):
            figures[system.name].starts.append(_start(system, path, threads))
    return figures


def _pair(systems: list[System], paths: list[Path]) -> list[tuple[System, Path]]:
    return list(zip(systems, paths, strict=True))


def _start(system: System, path: Path, threads: int) -> float:
    """Seconds from starting the process to the first token of a short prompt."""
    time.sleep(_PAUSE_SECONDS)
    started = time.perf_counter()
    with Worker(system.name, system.command(path, threads)) as worker:
        worker.ask([5, 6, 7, 8], 1)
        return time.perf_counter() - started


def _count_bytes(path: Path) -> int:
    files = [path] if path.is_file() else path.iterdir()
    return sum(file.stat().st_size for file in files if file.is_file())


def report(figures: Mapping[str, Figures]) -> dict[str, object]:
    """Print the table; gives the same for JSON."""
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


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="keeps what is slow to make")
    parser.add_argument("--systems", default=",".join(SYSTEMS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=count_usable_cores())
    arguments = parser.parse_args()
    names = arguments.systems.split(",")
    unknown = sorted(set(names) - set(SYSTEMS))
    if unknown:
        sys.exit(f"peers.py: no system {unknown[0]!r}; there are {', '.join(SYSTEMS)}.")
    machine = describe_machine(_PACKAGES)
    show_machine(machine)
    arguments.work.mkdir(parents=True, exist_ok=True)
    systems = [SYSTEMS[name] for name in names]
    try:
        with provide_checkpoint(SHAPES["edge-1.5b"], arguments.work) as checkpoint:
            paths = [system.make(checkpoint, arguments.work) for system in systems]
        figures = measure(systems, paths, arguments.threads, arguments.rounds)
    except (ChildError, OSError) as error:
        sys.exit(f"peers.py: {error}")
    found = report(figures)
    content = {"threads": arguments.threads, "systems": found, "machine": machine}
    print(json.dumps({"benchmark": "peers", **content}))


if __name__ == "__main__":
    main()
