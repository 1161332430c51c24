"""The two commands on the same prompts, each in a process of its own."""

import json
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import ChildError, child_environment

_START = "from glm_programs import run_runtime as main; main()"
_RATE = re.compile(r"tokens, ([\d.]+) tokens/s")
_ROWS = 8
_TAIL_CHARACTERS = 2000


@dataclass(frozen=True)
class Work:
    """What is answered.

    Attributes:
        prompts: number of prompts.
        new_tokens: number of tokens of each answer.
        threads: number of threads of all workers together.
    """

    prompts: int
    new_tokens: int
    threads: int


class Runs:
    """Runs of both commands in turn.

    Attributes:
        rows: number of rows that are answered at the same time.
        plain: tokens per second of `generate --prompts`, without loading.
        batch: the same of `batch`, by the number of workers.
        plain_seconds: time of the whole command.
        batch_seconds: the same of `batch` with one worker.
    """

    rows = _ROWS

    def __init__(self, folder: Path, work: Path, amount: Work) -> None:
        self._folder = folder
        self._work = work
        self._amount = amount
        self._input = work / "bulk.jsonl"
        with self._input.open("w") as file:
            for index in range(amount.prompts):
                text = f"Question {index % 7} of the same kind, number {index}"
                file.write(json.dumps({"custom_id": f"q{index}", "prompt": text}) + "\n")
        self.clear()

    def clear(self) -> None:
        """Forget what was measured."""
        self.plain: list[float] = []
        self.batch: dict[int, list[float]] = {}
        self.plain_seconds: list[float] = []
        self.batch_seconds: list[float] = []

    def run_round(self, counts: list[int]) -> None:
        """Measure each once.

        Raises:
            ChildError: a command failed.
        """
        # A folder of answers of an earlier benchmark would be complete already.
        name = f"bulk-{time.time_ns()}"
        output = self._work / name
        rate, seconds = self._run("generate", "--prompts", self._input, "--output", output)
        self.plain.append(rate)
        self.plain_seconds.append(seconds)
        for count in counts:
            place = self._work / f"{name}-{count}"
            options = ("--input", self._input, "--output", place, "--workers", count)
            rate, seconds = self._run("batch", *options, threads=self._amount.threads // count)
            self.batch.setdefault(count, []).append(rate)
            if count == 1:
                self.batch_seconds.append(seconds)

    def _run(self, name: str, *options: object, threads: int | None = None) -> tuple[float, float]:
        sizes = ("--max-new-tokens", self._amount.new_tokens, "--ignore-eos", "--raw", "--greedy")
        words = [name, self._folder, *options, *sizes, "--rows", _ROWS]
        words += ["--threads", threads or self._amount.threads]
        command = [sys.executable, "-c", _START, *map(str, words)]
        started = time.perf_counter()
        done = subprocess.run(
            command, capture_output=True, text=True, env=child_environment(), check=False
        )
        seconds = time.perf_counter() - started
        found = _RATE.search(done.stderr)
        if done.returncode or found is None:
            raise ChildError(f"glm-run {name} failed: {done.stderr[-_TAIL_CHARACTERS:]}")
        return float(found[1]), seconds
