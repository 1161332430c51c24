"""One folder in every host: start, first token, speed, memory, and what must be shipped.

    python benchmarks/hosts.py --work DIR [--shape sample|edge-1.5b] [--rounds N] [--cpp BUILD]

Each host holds the folder in a process of its own, with as many threads, and they take turns; every
round starts them anew, their files warm. --huge-pages moves the weights of Python and C++ onto huge
pages, as their `chat` does: a slower start, and speeds that hang less on where weights came to lie.
Figures are medians; ratios are over the first host, Python, of pairs. The tokens of all hosts but
the browser must be the same. BUILD is a CMake build of runtime/cpp; Node needs `npm ci` in
runtime/node, the browser that and `npm run build` in runtime/web. What is not there is left out.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from decode_worker import OURS, OURS_ON_SMALL_PAGES, THEIRS
from export_memory import provide_checkpoint
from host_sizes import (
    count_cpp_bytes,
    count_node_bytes,
    count_our_bytes,
    count_page_bytes,
    count_python_bytes,
)
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
_ROOT = _HERE.parent
_WORKERS = _HERE / "host_workers"
_NODE = _ROOT / "runtime" / "node"
_WEB = _ROOT / "runtime" / "web"
_SAMPLE = _ROOT / "artifacts" / "glm4-sample"
_PACKAGES = ("onnxruntime", "onnxruntime-genai", "numpy")
_CHROMIUM = "/usr/bin/chromium"  # or the path in CHROMIUM
_TOKENS = 64
_PAUSE_SECONDS = 0.5  # threads spin for some milliseconds after a run before they sleep
_SAMPLE_NAME, _SHAPE_NAME = "sample", "edge-1.5b"
# The vector whose answer is the longest, beyond 64 tokens.
_SAMPLE_VECTOR = 2


@dataclass(frozen=True)
class Host:
    """One row.

    Attributes:
        name: of it.
        command: (folder, threads) -> what to start.
        count_bytes: how much it ships besides the folder.
        is_browser: its memory is spread over processes, and its kernels do not round activations to
            int8, so that its tokens may be others.
    """

    name: str
    command: Callable[[Path, int], list[str]]
    count_bytes: Callable[[], int]
    is_browser: bool = False


@dataclass
class Figures:
    """What one host showed, round by round; `peak_rss_bytes` 0: not known."""

    answers: list[Answer] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)
    peak_rss_bytes: int = 0
    shipped_bytes: int = 0

    @property
    def rates(self) -> list[float]:
        """Tokens per second of each round."""
        return [answer.decode_rate for answer in self.answers]

    @property
    def first_tokens(self) -> list[float]:
        """Seconds to the first token of a loaded model, of each round."""
        return [answer.first_token_seconds for answer in self.answers]


def find_hosts(cpp_build: Path | None, work: Path, *, has_huge_pages: bool) -> list[Host]:
    """Those that can be run here, Python first; says which cannot."""
    script = str(_HERE / "decode_worker.py")

    def run_python(kind: str) -> Callable[[Path, int], list[str]]:
        return lambda folder, threads: [sys.executable, script, kind, str(folder), str(threads)]

    ours = ("onnxruntime", "numpy", "tokenizers", "jinja2", "click")
    hosts = [
        Host(
            "Python",
            run_python(OURS if has_huge_pages else OURS_ON_SMALL_PAGES),
            lambda: count_python_bytes(ours) + count_our_bytes(),
        )
    ]
    if cpp_build is None:
        _say("no --cpp: C and C++ are left out")
    else:
        program = _build_cpp_worker(cpp_build, work)
        command = _run_program(str(program), last=("huge",) if has_huge_pages else ())
        hosts.append(Host("C++", command, lambda: count_cpp_bytes(cpp_build)))
    node = shutil.which("node")
    if node is None or not (_NODE / "node_modules").is_dir():
        _say("no node, or no `npm ci` in runtime/node: Node is left out")
    else:
        worker = str(_WORKERS / "node_worker.js")
        hosts.append(Host("Node", _run_program(node, worker), lambda: count_node_bytes(_NODE)))
    page, chromium = _WEB / "dist", os.environ.get("CHROMIUM", _CHROMIUM)
    if node is None or not page.is_dir() or not Path(chromium).is_file():
        _say(f"no node, {chromium} or `npm run build` in runtime/web: the browser is left out")
    else:
        worker = str(_WORKERS / "browser_worker.js")
        browser = _run_program(node, worker)
        hosts.append(Host("Chromium, WASM", browser, lambda: count_page_bytes(page), True))
    theirs = ("onnxruntime-genai", "onnxruntime", "numpy")
    genai = Host("onnxruntime-genai", run_python(THEIRS), lambda: count_python_bytes(theirs))
    return [*hosts, genai]


def _run_program(*words: str, last: tuple[str, ...] = ()) -> Callable[[Path, int], list[str]]:
    return lambda folder, threads: [*words, str(folder), str(threads), *last]


def _build_cpp_worker(build: Path, work: Path) -> Path:
    program = work / "cpp_worker"
    flags = ["-std=c++17", "-O2", f"-I{_ROOT / 'runtime' / 'cpp' / 'include'}"]
    library = [f"-L{build}", "-lglm", f"-Wl,-rpath,{build.resolve()}"]
    source = str(_WORKERS / "cpp_worker.cpp")
    subprocess.run(["c++", *flags, source, "-o", str(program), *library], check=True)
    return program


def measure(
    hosts: list[Host], folder: Path, prompt: list[int], threads: int, rounds: int
) -> dict[str, Figures]:
    """Start each anew in every round, in turn, forwards and backwards, after a round to warm up.

    One process of a host may decode faster than the next by a tenth and more, for as long as it
    lives, by where its weights came to lie.

    Raises:
        ChildError: a host failed, or gave other tokens than the first.
    """
    figures = {host.name: Figures(shipped_bytes=host.count_bytes()) for host in hosts}
    for index in range(-1, rounds):
        _say("warming up" if index < 0 else f"round {index + 1} of {rounds}")
        for host in hosts if index % 2 else reversed(hosts):
            time.sleep(_PAUSE_SECONDS)
            started = time.perf_counter()
            with Worker(host.name, host.command(folder, threads)) as worker:
                worker.ask(prompt, 1)
                start_seconds = time.perf_counter() - started
                answer = worker.ask(prompt, _TOKENS)
            if index >= 0:
                figures[host.name].starts.append(start_seconds)
                figures[host.name].answers.append(answer)
            if not host.is_browser:
                figures[host.name].peak_rss_bytes = worker.peak_rss_bytes
    _require_same_tokens({h.name: figures[h.name] for h in hosts if not h.is_browser})
    return figures


def _require_same_tokens(figures: Mapping[str, Figures]) -> None:
    expected = next(iter(figures.values())).answers[0].tokens
    for name, one in figures.items():
        if any(answer.tokens != expected for answer in one.answers):
            raise ChildError(f"{name} gave other tokens than Python; see tests/hosts.")


def report(figures: Mapping[str, Figures]) -> dict[str, object]:
    """Print the table; gives the same for JSON."""
    python = next(iter(figures.values()))
    names = ("start to token s", "first token ms", "decode tokens/s", "over Python's", "peak MB")
    print(f"\n{'host':20}" + "".join(f"{name:>26}" for name in names) + f"{'ships MB':>10}")
    found: dict[str, object] = {}
    for name, one in figures.items():
        spreads: dict[str, Spread] = {
            "start_seconds": summarize(one.starts),
            "first_token_seconds": summarize(one.first_tokens),
            "decode_tokens_per_second": summarize(one.rates),
            "decode_over_python": compare_pairs(one.rates, python.rates),
            "start_over_python": compare_pairs(one.starts, python.starts),
        }
        milliseconds = summarize([1000 * value for value in one.first_tokens])
        cells = [
            spreads["start_seconds"].describe(2),
            milliseconds.describe(1),
            spreads["decode_tokens_per_second"].describe(1),
            spreads["decode_over_python"].describe(3),
            f"{one.peak_rss_bytes / 1e6:.0f}" if one.peak_rss_bytes else "not told",
        ]
        line = f"{name:20}" + "".join(f"{cell:>26}" for cell in cells)
        print(line + f"{one.shipped_bytes / 1e6:>10.1f}")
        found[name] = {key: as_json(spread) for key, spread in spreads.items()} | {
            "peak_rss_bytes": one.peak_rss_bytes,
            "shipped_bytes": one.shipped_bytes,
        }
    return found


def provide_folder(shape: str, work: Path) -> tuple[Path, list[int]]:
    """The exported folder, and a prompt that it answers with enough tokens.

    Raises:
        ChildError: it could not be exported.
    """
    folder = work / f"hosts-{shape}"
    settings = ["--method", "rtn", "--verify", "none"]
    if shape == _SAMPLE_NAME:
        settings.append("--conformance")
        if not folder.is_dir():
            _export(_SAMPLE, folder, settings)
        vectors = json.loads((folder / "conformance.json").read_text(encoding="utf-8"))["vectors"]
        return folder, list(vectors[_SAMPLE_VECTOR]["token_ids"])
    if not folder.is_dir():
        with provide_checkpoint(SHAPES[shape], work) as checkpoint:
            _export(checkpoint, folder, [*settings, "--block-size", "128"])
    random = np.random.default_rng(0)
    return folder, random.integers(SHAPES[shape].first_special_id, size=32).tolist()


def _export(checkpoint: Path, folder: Path, settings: list[str]) -> None:
    command = ["-m", "glm_export", str(checkpoint), "-o", str(folder), *settings]
    run_child([sys.executable, *command])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="keeps what is slow to make")
    parser.add_argument("--shape", choices=(_SAMPLE_NAME, _SHAPE_NAME), default=_SAMPLE_NAME)
    parser.add_argument("--cpp", type=Path, help="a CMake build of runtime/cpp")
    parser.add_argument("--huge-pages", action="store_true", help="for Python and C++")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=count_usable_cores())
    arguments = parser.parse_args()
    machine = describe_machine(_PACKAGES)
    show_machine(machine)
    arguments.work.mkdir(parents=True, exist_ok=True)
    try:
        hosts = find_hosts(arguments.cpp, arguments.work, has_huge_pages=arguments.huge_pages)
        if arguments.shape != _SAMPLE_NAME:  # WebAssembly takes seconds for each of its tokens
            hosts = [host for host in hosts if not host.is_browser]
        folder, prompt = provide_folder(arguments.shape, arguments.work)
        figures = measure(hosts, folder, prompt, arguments.threads, arguments.rounds)
    except (ChildError, OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"hosts.py: {error}")
    size_bytes = sum(file.stat().st_size for file in folder.iterdir())
    print(
        f"\nfolder {size_bytes / 1e6:.1f} MB, {len(prompt)} tokens of prompt, {_TOKENS} of answer"
    )
    content = {"threads": arguments.threads, "shape": arguments.shape, "folder_bytes": size_bytes}
    found = report(figures)
    print(json.dumps({"benchmark": "hosts", **content, "hosts": found, "machine": machine}))


if __name__ == "__main__":
    main()
