"""One folder in every host: start, first token, speed, memory, and what must be installed.

Each host holds the folder in a process of its own, with as many threads, and they take turns; every
round starts them anew, with their files warm. Ratios are of pairs, over the first host, Python. The
tokens of all hosts but the browser must be the same. Hosts that are not installed are left out.
"""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np

import glm_runtime
from benchmarks.checkpoints import SHAPES
from benchmarks.command import (
    Figures,
    benchmark,
    rounds_option,
    say,
    say_round,
    threads_option,
    work_option,
)
from benchmarks.exports import BLOCK_128, SAMPLE, count_bytes, export, provide_checkpoint
from benchmarks.measurement import Spread, as_json, compare_pairs, summarize
from benchmarks.processes import PAUSE_SECONDS, ROOT, Answer, ChildError, Worker
from benchmarks.runtimes import OURS, OURS_ON_SMALL_PAGES, THEIRS, command_of

_HERE = Path(__file__).parent
_NODE = ROOT / "runtime" / "node"
_WEB = ROOT / "runtime" / "web"
_CHROMIUM = "/usr/bin/chromium"  # or the path in CHROMIUM
_TOKENS = 64
_SAMPLE_NAME, _SHAPE_NAME = "sample", "edge-1.5b"
# The conformance vector whose answer is the longest, beyond 64 tokens.
_SAMPLE_VECTOR = 2
_NODE_PACKAGES = (
    "onnxruntime-node",
    "onnxruntime-common",
    "@huggingface/jinja",
    "@huggingface/tokenizers",
)
_OTHER_BUILD = re.compile(r"asyncify|webgpu|LEGAL")


@dataclass(frozen=True)
class Host:
    """One row.

    Attributes:
        name: its name in the table.
        command: (folder, threads) -> the command of its worker.
        count_bytes: counts what is installed for it, besides the folder.
        is_browser: its memory is spread over processes, and its kernels do not round activations to
            int8, so its tokens may differ.
    """

    name: str
    command: Callable[[Path, int], list[str]]
    count_bytes: Callable[[], int]
    is_browser: bool = False


@dataclass
class Results:
    """Measurements of one host, one a round; `peak_rss_bytes` is 0 where it is not known."""

    answers: list[Answer] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)
    peak_rss_bytes: int = 0
    shipped_bytes: int = 0

    @property
    def rates(self) -> list[float]:
        """Tokens per second of each round."""
        return [answer.decode_rate for answer in self.answers]


def find_hosts(cpp_build: Path | None, work: Path, *, has_huge_pages: bool) -> list[Host]:
    """List the hosts that can be run here, Python first, and say which cannot."""

    def run_python(system: str) -> Callable[[Path, int], list[str]]:
        return lambda folder, threads: command_of(system, folder, threads)

    ours = ("onnxruntime", "numpy", "tokenizers", "jinja2", "click")
    hosts = [
        Host(
            "Python",
            run_python(OURS if has_huge_pages else OURS_ON_SMALL_PAGES),
            lambda: _count_python_bytes(ours) + _count_our_bytes(),
        )
    ]
    if cpp_build is None:
        say("no --cpp: C and C++ are left out")
    else:
        program = _build_cpp_worker(cpp_build, work)
        command = _run_program(str(program), last=("huge",) if has_huge_pages else ())
        hosts.append(Host("C++", command, lambda: _count_cpp_bytes(cpp_build)))
    node = shutil.which("node")
    if node is None or not (_NODE / "node_modules").is_dir():
        say("no node, or no `npm ci` in runtime/node: Node is left out")
    else:
        worker = _run_program(node, str(_HERE / "worker.mjs"), "node")
        hosts.append(Host("Node", worker, lambda: _count_node_bytes(_NODE)))
    page, chromium = _WEB / "dist", os.environ.get("CHROMIUM", _CHROMIUM)
    if node is None or not page.is_dir() or not Path(chromium).is_file():
        say(f"no node, {chromium} or `npm run build` in runtime/web: the browser is left out")
    else:
        worker = _run_program(node, str(_HERE / "worker.mjs"), "browser")
        hosts.append(Host("Chromium, WASM", worker, lambda: _count_page_bytes(page), True))
    theirs = ("onnxruntime-genai", "onnxruntime", "numpy")
    genai = Host("onnxruntime-genai", run_python(THEIRS), lambda: _count_python_bytes(theirs))
    return [*hosts, genai]


def _run_program(*words: str, last: tuple[str, ...] = ()) -> Callable[[Path, int], list[str]]:
    return lambda folder, threads: [*words, str(folder), str(threads), *last]


def _build_cpp_worker(build: Path, work: Path) -> Path:
    program = work / "worker"
    flags = ["-std=c++17", "-O2", f"-I{ROOT / 'runtime' / 'cpp' / 'include'}"]
    library = [f"-L{build}", "-lglm", f"-Wl,-rpath,{build.resolve()}"]
    source = str(_HERE / "worker.cpp")
    subprocess.run(["c++", *flags, source, "-o", str(program), *library], check=True)
    return program


def measure(
    hosts: list[Host], folder: Path, prompt: list[int], threads: int, rounds: int
) -> dict[str, Results]:
    """Start each host anew in every round, in turn, forwards and backwards, after a warm-up round.

    One process of a host may decode a tenth faster than the next, or more, as long as it lives,
    depending on the addresses of its weights.

    Raises:
        ChildError: a host failed, or gave other tokens than the first.
    """
    figures = {host.name: Results(shipped_bytes=host.count_bytes()) for host in hosts}
    for index in range(-1, rounds):
        say_round(index, rounds)
        for host in hosts if index % 2 else reversed(hosts):
            time.sleep(PAUSE_SECONDS)
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


def _require_same_tokens(figures: Mapping[str, Results]) -> None:
    expected = next(iter(figures.values())).answers[0].tokens
    for name, one in figures.items():
        if any(answer.tokens != expected for answer in one.answers):
            raise ChildError(f"{name} gave other tokens than Python; see tests/hosts.")


def report(figures: Mapping[str, Results]) -> dict[str, object]:
    """Print the table and give the figures."""
    python = next(iter(figures.values()))
    names = ("start to token s", "first token ms", "decode tokens/s", "over Python's", "peak MB")
    print(f"\n{'host':20}" + "".join(f"{name:>26}" for name in names) + f"{'ships MB':>10}")
    found: dict[str, object] = {}
    for name, one in figures.items():
        first_tokens = [answer.first_token_seconds for answer in one.answers]
        spreads: dict[str, Spread] = {
            "start_seconds": summarize(one.starts),
            "first_token_seconds": summarize(first_tokens),
            "decode_tokens_per_second": summarize(one.rates),
            "decode_over_python": compare_pairs(one.rates, python.rates),
            "start_over_python": compare_pairs(one.starts, python.starts),
        }
        milliseconds = summarize([1000 * value for value in first_tokens])
        cells = [
            spreads["start_seconds"].describe(2),
            milliseconds.describe(1),
            spreads["decode_tokens_per_second"].describe(1),
            spreads["decode_over_python"].describe(3),
            f"{one.peak_rss_bytes / 1e6:.0f}" if one.peak_rss_bytes else "unknown",
        ]
        line = f"{name:20}" + "".join(f"{cell:>26}" for cell in cells)
        print(line + f"{one.shipped_bytes / 1e6:>10.1f}")
        found[name] = {key: as_json(spread) for key, spread in spreads.items()} | {
            "peak_rss_bytes": one.peak_rss_bytes,
            "shipped_bytes": one.shipped_bytes,
        }
    return found


def provide_folder(shape: str, work: Path) -> tuple[Path, list[int]]:
    """Export the folder, and choose a prompt that it answers with enough tokens.

    Raises:
        ChildError: it could not be exported.
    """
    folder = work / f"hosts-{shape}"
    if shape == _SAMPLE_NAME:
        if not folder.is_dir():
            export(SAMPLE, folder, "--method", "rtn", "--verify", "none", "--conformance")
        vectors = json.loads((folder / "conformance.json").read_text(encoding="utf-8"))["vectors"]
        return folder, list(vectors[_SAMPLE_VECTOR]["token_ids"])
    if not folder.is_dir():
        with provide_checkpoint(SHAPES[shape], work) as checkpoint:
            export(checkpoint, folder, *BLOCK_128)
    random = np.random.default_rng(0)
    return folder, random.integers(SHAPES[shape].first_special_id, size=32).tolist()


def _count_our_bytes() -> int:
    """The package `glm_runtime`."""
    return sum(_list_sizes(Path(glm_runtime.__file__).parent.rglob("*.py")))


def _count_python_bytes(names: Sequence[str]) -> int:
    """Installed files of these packages and what they require, without Python itself."""
    wanted, seen = list(names), set[str]()
    total = 0
    while wanted:
        name = re.sub(r"[-_.]+", "-", wanted.pop()).lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            package = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # required on another system only
        total += sum(_list_sizes(Path(str(file.locate())) for file in package.files or []))
        wanted += [
            re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
            for requirement in package.requires or []
            if "extra ==" not in requirement
        ]
    return total


def _count_cpp_bytes(build: Path) -> int:
    """The program, its library, and ONNX Runtime's."""
    files = {path.resolve() for pattern in ("glm-run", "lib*.so*") for path in build.glob(pattern)}
    return sum(_list_sizes(files))


def _count_node_bytes(package: Path) -> int:
    """The package and what it depends on, with the binaries of this system only."""
    modules = package / "node_modules"
    files = set((package / "src").rglob("*.js"))
    for name in _NODE_PACKAGES:
        files |= set((modules / name).rglob("*"))
    binaries = modules / "onnxruntime-node" / "bin"
    kept = {path for path in files if binaries not in path.parents or "linux/x64" in str(path)}
    return sum(_list_sizes(kept))


def _count_page_bytes(page: Path) -> int:
    """The page, with the build of ONNX Runtime that has no WebGPU."""
    return sum(_list_sizes(path for path in page.rglob("*") if not _OTHER_BUILD.search(path.name)))


def _list_sizes(files: Iterable[Path]) -> Iterable[int]:
    return (
        file.stat().st_size for file in files if file.is_file() and "__pycache__" not in file.parts
    )


@benchmark(
    "onnxruntime",
    "onnxruntime-genai",
    "numpy",
    examples="""\
python -m benchmarks.hosts
python -m benchmarks.hosts --cpp build --rounds 9
python -m benchmarks.hosts --shape edge-1.5b --huge-pages --work work""",
)
@click.option(
    "--shape",
    type=click.Choice((_SAMPLE_NAME, _SHAPE_NAME)),
    default=_SAMPLE_NAME,
    show_default=True,
    help="Checkpoint to export: the sample, or random weights of a shape.",
)
@click.option(
    "--cpp",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="CMake build folder of runtime/cpp. Without it, C++ is left out.",
)
@click.option(
    "--huge-pages",
    is_flag=True,
    help="Load weights of Python and C++ onto huge pages, as chat does.",
)
@rounds_option(7)
@threads_option
@work_option
def hosts(
    shape: str, cpp: Path | None, *, huge_pages: bool, rounds: int, threads: int, work: Path
) -> Figures:
    """Measure one folder in Python, C++, Node, a browser and onnxruntime-genai."""
    found = find_hosts(cpp, work, has_huge_pages=huge_pages)
    if shape != _SAMPLE_NAME:  # WebAssembly takes seconds for each of its tokens
        found = [host for host in found if not host.is_browser]
    folder, prompt = provide_folder(shape, work)
    figures = measure(found, folder, prompt, threads, rounds)
    size_bytes = count_bytes(folder)
    print(f"\nfolder {size_bytes / 1e6:.1f} MB, {len(prompt)} prompt tokens, {_TOKENS} new tokens")
    return {"folder_bytes": size_bytes, "hosts": report(figures)}


if __name__ == "__main__":
    hosts(prog_name="python -m benchmarks.hosts")
