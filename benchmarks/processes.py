"""Child processes: commands that run to their end, and workers that answer one prompt at a time.

A worker holds one loaded model in a process of its own. It reads a JSON request from every line of
stdin and writes a JSON answer to stdout. This module imports nothing but the standard library,
since each peer has an environment of its own.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

ROOT = Path(__file__).parents[1]
# ONNX Runtime's threads spin for some milliseconds after a run before they sleep.
PAUSE_SECONDS = 0.5
_TAIL_CHARACTERS = 2000
_MEMORY_UNIT = 1 if sys.platform == "darwin" else 1024


class ChildError(Exception):
    """A child process failed; the message holds the end of its error output."""


@dataclass(frozen=True)
class ChildReport:
    """A child process that has ended.

    Attributes:
        seconds: from its start to its end.
        peak_rss_bytes: the kernel's maximum of its resident memory.
        output: its stdout.
        cpu_seconds: processor time of all its threads.
    """

    seconds: float
    peak_rss_bytes: int
    output: str
    cpu_seconds: float

    def read_json(self) -> dict[str, Any]:
        """Parse the last line of stdout, which is a JSON object."""
        content: dict[str, Any] = json.loads(self.output.splitlines()[-1])
        return content


def find_module(name: str, python: Path | str = sys.executable) -> list[str]:
    """The start of a command that runs a module of this package, such as `peers.llama_cpp`."""
    return [str(python), "-m", f"benchmarks.{name}"]


def run_child(command: Sequence[str]) -> ChildReport:
    """Run a command to its end and ask the kernel what it needed.

    The maximum starts at what this process holds, since Linux counts a child from before it has
    loaded its program. A benchmark that calls this must stay below what it measures.

    Raises:
        ChildError: the command failed.
    """
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=child_environment()
        )
        assert child.stdout is not None
        output = child.stdout.read()
        usage = _reap(child)
        seconds = time.perf_counter() - started
        errors.seek(0)
        tail = errors.read()[-_TAIL_CHARACTERS:].strip()
    if child.returncode:
        name = " ".join(Path(part).name for part in command[:3])
        raise ChildError(f"{name} ended with code {child.returncode}: {tail}")
    cpu_seconds = usage.ru_utime + usage.ru_stime
    return ChildReport(seconds, usage.ru_maxrss * _MEMORY_UNIT, output, cpu_seconds)


def child_environment() -> dict[str, str]:
    """Ours, with this package on the import path, whatever the working folder is."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def _reap(child: subprocess.Popen[str]) -> Any:
    """Wait for the end; gives the kernel's account, which Popen would throw away."""
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return usage


@dataclass(frozen=True)
class Answer:
    """One answer of a worker; `decode_seconds` is the time for all tokens after the first."""

    first_token_seconds: float
    decode_seconds: float
    tokens: tuple[int, ...]

    @property
    def decode_rate(self) -> float:
        """Tokens per second after the first."""
        return (len(self.tokens) - 1) / self.decode_seconds


class Worker:
    """A process that holds one loaded model; `peak_rss_bytes` is known after it is closed."""

    def __init__(self, system: str, command: Sequence[str]) -> None:
        """Start and wait until the model is loaded.

        Args:
            system: its name.
            command: a program that does what `serve` does.

        Raises:
            ChildError: the model could not be loaded.
        """
        self.system = system
        self.peak_rss_bytes = 0
        self._child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=child_environment(),
        )
        self.load_seconds = float(self._read()["load_seconds"])

    def ask(self, prompt: Sequence[int], num_tokens: int) -> Answer:
        """Answer a prompt greedily with exactly `num_tokens` tokens.

        Raises:
            ChildError: the worker failed, or the answer ended early.
        """
        assert self._child.stdin is not None
        request = {"prompt": list(prompt), "num_tokens": num_tokens}
        self._child.stdin.write(json.dumps(request) + "\n")
        self._child.stdin.flush()
        answer = self._read()
        tokens = tuple(answer["tokens"])
        if len(tokens) != num_tokens:
            raise ChildError(
                f"{self.system} gave {len(tokens)} tokens where {num_tokens} are needed: "
                "the model ended its answer; take another --seed."
            )
        return Answer(answer["first_token_seconds"], answer["decode_seconds"], tokens)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the process, which leaves its loop when its input ends."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        self.peak_rss_bytes = _reap(self._child).ru_maxrss * _MEMORY_UNIT

    def _read(self) -> dict[str, Any]:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            raise ChildError(f"{self.system} ended; its error output is above.")
        message: dict[str, Any] = json.loads(line)
        return message


class System(Protocol):
    """A loaded model inside a worker."""

    def generate(self, prompt: Sequence[int], num_tokens: int) -> Iterator[int]:
        """Yield the tokens of a greedy answer as they come."""


def serve(load: Callable[[], System]) -> None:
    """The whole program of a worker: load a model, report the time, answer every line."""
    started = time.perf_counter()
    system = load()
    print(json.dumps({"load_seconds": time.perf_counter() - started}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        answer = _answer(system, request["prompt"], request["num_tokens"])
        print(json.dumps(answer), flush=True)


def _answer(system: System, prompt: Sequence[int], num_tokens: int) -> dict[str, object]:
    """Answer once; the time of decoding is that of `num_tokens - 1` runs of the graph."""
    started = time.perf_counter()
    tokens = system.generate(prompt, num_tokens)
    first = next(tokens)
    middle = time.perf_counter()
    rest = list(tokens)
    ended = time.perf_counter()
    return {
        "first_token_seconds": middle - started,
        "decode_seconds": ended - middle,
        "tokens": [first, *rest],
    }
