"""Our server beside llama.cpp's: several clients, long prompts beside answers, second turns.

Both servers run all the time and take turns. `load.py` has the clients, `measures.py` what they
measure, and `in_process.py` our runtime without HTTP.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

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
from benchmarks.exports import BLOCK_128, export, provide_checkpoint
from benchmarks.measurement import Spread, as_json, compare_pairs, summarize
from benchmarks.peers.environments import provide_python
from benchmarks.processes import PAUSE_SECONDS, Worker, find_module, run_child
from benchmarks.serve.in_process import start_worker
from benchmarks.serve.measures import (
    CLIENTS,
    InProcess,
    Measurements,
    Work,
    describe_load,
    measure_load,
    measure_session,
    measure_stall,
    measure_steps,
    measure_steps_in_process,
    measure_turn,
)
from benchmarks.serve.picture import draw
from benchmarks.serve.servers import OURS, THEIRS, Server, start_llama, start_ours
from glm_runtime.cli.options import gather

PARTS = ("load", "stall", "turn", "http")
_SETUP_OPTIONS = (
    shape_option,
    threads_option,
    click.option(
        "--llama-server",
        "llama",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="The program llama-server of llama.cpp. Without it, our server is measured alone.",
    ),
)
_WORK_OPTIONS = (
    click.option(
        "--parts",
        callback=split_names,
        default=",".join(PARTS),
        show_default=True,
        help="What is measured, with commas between.",
    ),
    click.option(
        "--requests",
        type=click.IntRange(min=1),
        default=4,
        show_default=True,
        help="Number of requests of each client in a round.",
    ),
    click.option(
        "--answer-tokens",
        type=click.IntRange(min=2),
        default=32,
        show_default=True,
        help="Number of tokens of each answer.",
    ),
    click.option(
        "--long-prompt",
        type=click.IntRange(min=1),
        default=2048,
        show_default=True,
        help="Number of tokens of the prompt that arrives beside running answers.",
    ),
)


@dataclass(frozen=True)
class Setup:
    """What is measured.

    Attributes:
        shape: name of the shape of the checkpoint.
        threads: number of threads of each server.
        llama: llama.cpp's server; `None` leaves it out.
    """

    shape: str
    threads: int
    llama: Path | None


def _setup_options(command: Callable[..., Any]) -> Callable[..., Any]:
    return gather("setup", _SETUP_OPTIONS, lambda values: Setup(**values), command)


def _work_options(command: Callable[..., Any]) -> Callable[..., Any]:
    return gather("amount", _WORK_OPTIONS, lambda values: Work(**values), command)


def provide_models(shape: str, work: Path, *, has_llama: bool) -> tuple[Path, Path]:
    """Return our folder and the GGUF file, which are made unless they are there.

    Raises:
        ChildError: a conversion failed.
    """
    folder, gguf = work / f"serve-{shape}", work / f"serve-{shape}-Q4_0.gguf"
    if folder.is_dir() and (gguf.exists() or not has_llama):
        return folder, gguf
    with provide_checkpoint(SHAPES[shape], work) as checkpoint:
        if not folder.is_dir():
            export(checkpoint, folder, *BLOCK_128)
        if has_llama and not gguf.exists():
            say("converting to GGUF")
            tool = find_module("peers.gguf_file", provide_python(work, "gguf"))
            unfinished = gguf.with_suffix(".part")
            run_child([*tool, str(checkpoint), str(unfinished)])
            unfinished.replace(gguf)
    return folder, gguf


class Comparison:
    """Servers that take turns, and workers without HTTP.

    Attributes:
        found: what was measured, by the name of the server.
        without_http: the same in this program's own workers.
    """

    def __init__(self, servers: Sequence[Server], engine: Worker, session: Worker) -> None:
        self._servers = servers
        self._engine = engine
        self._session = session
        self.found = {server.name: Measurements() for server in servers}
        self.without_http = InProcess()

    def clear(self) -> None:
        """Forget what was measured, after the warm-up."""
        self.found = {server.name: Measurements() for server in self._servers}
        self.without_http = InProcess()

    def run_round(self, work: Work, seed: int) -> None:
        """Measure each server once, in turn; every other round begins with the last one.

        Raises:
            ChildError: a server refused, or gave fewer tokens than asked for.
        """
        order = self._servers if seed % 2 else self._servers[::-1]
        for clients in CLIENTS if "load" in work.parts else ():
            for server in self._take_turns(order):
                load = measure_load(server, clients, work, seed)
                self.found[server.name].loads[clients].append(load)
        if "stall" in work.parts:
            for server in self._take_turns(order):
                measure_stall(server, work, seed, self.found[server.name])
        if "turn" in work.parts:
            second = measure_session(self._session, work, seed, self.without_http)
            for server in self._take_turns(order):
                measure_turn(server, second, work, self.found[server.name])
        if "http" in work.parts:
            time.sleep(PAUSE_SECONDS)
            measure_steps_in_process(self._engine, seed, self.without_http)
            for server in self._take_turns(order):
                measure_steps(server, seed, self.found[server.name])

    def _take_turns(self, order: Sequence[Server]) -> Iterator[Server]:
        for server in order:
            time.sleep(PAUSE_SECONDS)
            yield server
            server.note_memory()


@contextmanager
def start_comparison(setup: Setup, work: Path) -> Iterator[tuple[Comparison, list[Server]]]:
    """Start everything; without a program of llama.cpp, our server is alone.

    Raises:
        ChildError: a server did not start.
    """
    threads, llama = setup.threads, setup.llama
    folder, gguf = provide_models(setup.shape, work, has_llama=llama is not None)
    with ExitStack() as stack:
        servers = [stack.enter_context(start_ours(folder, threads))]
        if llama is not None:
            servers.append(stack.enter_context(start_llama(llama, gguf, threads)))
        engine = stack.enter_context(start_worker("engine", folder, threads))
        session = stack.enter_context(start_worker("session", folder, threads))
        yield Comparison(servers, engine, session), servers


def describe(one: Measurements) -> dict[str, object]:
    """Return the figures of one server, without those that were not measured."""
    spreads = {
        "stall_seconds": one.stalls,
        "delay_seconds": one.delays,
        "usual_delay_seconds": one.usual_delays,
        "chunk_seconds": one.chunks,
        "long_prompt_first_token_seconds": one.long_firsts,
        "second_turn_first_token_seconds": one.turns,
        "second_turn_cached_share": one.cached,
        "token_seconds": one.steps,
    }
    loads = {str(clients): describe_load(some) for clients, some in one.loads.items() if some}
    figures = {name: as_json(summarize(values)) for name, values in spreads.items() if values}
    return {"clients": loads, **figures}


def compare(found: Mapping[str, Measurements], alone: InProcess) -> dict[str, Spread]:
    """Return ratios of pairs: of our server over llama.cpp's, over a session, over a chunk."""
    ours, theirs = found[OURS], found.get(THEIRS)
    ratios: dict[str, Spread] = {}
    if ours.stalls:
        ratios["largest delay over one chunk"] = compare_pairs(ours.delays, ours.chunks)
        ratios["usual delay over one chunk"] = compare_pairs(ours.usual_delays, ours.chunks)
    if ours.turns:
        ratios["second turn over a session's"] = compare_pairs(ours.turns, alone.turns)
    if ours.steps:
        pairs = zip(ours.steps, alone.steps, strict=True)
        ratios["HTTP's share of a step"] = summarize([(a - b) / b for a, b in pairs])
    if theirs is None:
        return ratios
    for clients, loads in ours.loads.items():
        if loads:
            rates = [load.rate for load in loads]
            others = [load.rate for load in theirs.loads[clients]]
            ratios[f"throughput over llama-server's, {clients} clients"] = compare_pairs(
                rates, others
            )
    if ours.stalls:
        ratios["stall over llama-server's"] = compare_pairs(ours.stalls, theirs.stalls)
    if ours.turns:
        ratios["second turn over llama-server's"] = compare_pairs(ours.turns, theirs.turns)
    return ratios


def report(comparison: Comparison, servers: Sequence[Server]) -> dict[str, object]:
    """Print the tables and give the figures."""
    figures: dict[str, Any] = {name: describe(one) for name, one in comparison.found.items()}
    print(f"\n{'server':15}{'clients':>8}{'tokens/s':>10}", end="")
    print(
        "".join(
            f"{name:>13}" for name in ("first p50 s", "first p99 s", "next p50 ms", "next p99 ms")
        )
    )
    for name, one in figures.items():
        for clients, of_load in one["clients"].items():
            first, last, near, far = (of_load[key]["median"] for key in list(of_load)[1:])
            print(f"{name:15}{clients:>8}{of_load['tokens_per_second']['median']:>10.1f}", end="")
            print(f"{first:>13.3f}{last:>13.3f}{1000 * near:>13.1f}{1000 * far:>13.1f}")
    for server in servers:
        one = figures[server.name]
        one["peak_pss_bytes"], one["peak_rss_bytes"] = server.peak_pss_bytes, server.peak_rss_bytes
        pss, rss = one["peak_pss_bytes"] / 1e9, one["peak_rss_bytes"] / 1e9
        print(f"\n{server.name}: PSS {pss:.2f} GB, peak RSS {rss:.2f} GB")
        for key, value in one.items():
            if isinstance(value, dict) and "median" in value:
                ends = f"{value['minimum']:.4f} - {value['maximum']:.4f}"
                print(f"  {key:32} {value['median']:.4f} ({ends})")
    alone = comparison.without_http
    without = {"token_seconds": alone.steps, "second_turn_first_token_seconds": alone.turns}
    ratios = compare(comparison.found, alone)
    print("\nratios of pairs")
    for key, spread in ratios.items():
        print(f"  {key:46} {spread.describe(3)}")
    return {
        "servers": figures,
        "in_process": {
            key: as_json(summarize(values)) for key, values in without.items() if values
        },
        "ratios": {key: as_json(spread) for key, spread in ratios.items()},
    }


@benchmark(
    "onnxruntime",
    "fastapi",
    "uvicorn",
    "numpy",
    examples="""\
python -m benchmarks.serve --work work
python -m benchmarks.serve --work work --llama-server build/bin/llama-server --plot serve.svg
python -m benchmarks.serve --work work --parts load --rounds 9 --requests 8""",
)
@rounds_option(5)
@work_option
@_setup_options
@_work_options
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File for the picture, SVG or PNG. It needs matplotlib.",
)
def serve(setup: Setup, amount: Work, rounds: int, work: Path, plot: Path | None) -> Figures:
    """Measure our server beside llama.cpp's, with 1 to 8 clients."""
    unknown = sorted(set(amount.parts) - set(PARTS))
    if unknown:
        raise click.UsageError(f"--parts: {unknown[0]!r} is none of {', '.join(PARTS)}.")
    with start_comparison(setup, work) as (comparison, servers):
        for index in range(-1, rounds):
            say_round(index, rounds)
            comparison.run_round(amount, index + 1)
            if index < 0:
                comparison.clear()
        figures = report(comparison, servers)
    if plot is not None and "load" in amount.parts:
        draw(figures, plot)
        say(f"wrote {plot}")
    return figures


if __name__ == "__main__":
    serve(prog_name="python -m benchmarks.serve")
