"""Child processes that hold a loaded model and answer when told, one at a time."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from measurement import ChildError

_SCRIPT = Path(__file__).with_name("decode_worker.py")


@dataclass(frozen=True)
class Answer:
    """One answer of a worker; `decode_seconds` is for all tokens after the first."""

    first_token_seconds: float
    decode_seconds: float
    tokens: tuple[int, ...]

    @property
    def decode_rate(self) -> float:
        """Tokens per second after the first."""
        return (len(self.tokens) - 1) / self.decode_seconds


class Worker:
    """A process that holds one runtime; closing it tells how much memory it needed."""

    def __init__(self, system: str, command: Sequence[str]) -> None:
        """Start and wait until the model is loaded.

        Args:
            system: its name.
            command: a program that does what `answering.serve` does.

        Raises:
            ChildError: it could not be loaded.
        """
        self.system = system
        self.peak_rss_bytes = 0
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.load_seconds = float(self._read()["load_seconds"])

    @classmethod
    def of_folder(cls, system: str, folder: Path, threads: int) -> Self:
        """`decode_worker.py` with one of its runtimes."""
        return cls(system, [sys.executable, str(_SCRIPT), system, str(folder), str(threads)])

    def ask(self, prompt: Sequence[int], num_tokens: int) -> Answer:
        """Answer a prompt greedily with exactly so many tokens.

        Raises:
            ChildError: it failed, or ended its answer early.
        """
        assert self._child.stdin is not None
        request = {"prompt": list(prompt), "num_tokens": num_tokens}
        self._child.stdin.write(json.dumps(request) + "\n")
        self._child.stdin.flush()
        answer = _parse_answer(self._read())
        if len(answer.tokens) != num_tokens:
            raise ChildError(
                f"{self.system} gave {len(answer.tokens)} tokens where {num_tokens} are needed: "
                "the model ended its answer; take another --seed."
            )
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the process; it leaves its loop when its input ends."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        _, status, usage = os.wait4(self._child.pid, 0)
        self._child.returncode = os.waitstatus_to_exitcode(status)
        self.peak_rss_bytes = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)

    def _read(self) -> dict[str, Any]:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            raise ChildError(f"{self.system} ended; what it said is above.")
        message: dict[str, Any] = json.loads(line)
        return message


def _parse_answer(message: dict[str, Any]) -> Answer:
    return Answer(
        float(message["first_token_seconds"]),
        float(message["decode_seconds"]),
        tuple(message["tokens"]),
    )
