"""The commands as a shell starts them: own process, own signals, exit codes, two streams."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

ENTRY_POINTS = {"glm-export": "run_export", "glm-eval": "run_evaluation", "glm-run": "run_runtime"}
# A busy machine makes a command slow, so a wait ends when nothing moves, not after some seconds.
_IDLE_SECONDS = 120.0
_PROCESSOR_SECONDS = 1800.0


def start_command(name: str, *arguments: object, before: str = "") -> subprocess.Popen[str]:
    """Start one of our commands through its entry point.

    Args:
        name: the command.
        arguments: its arguments.
        before: Python statements to run first.
    """
    code = f"{before}\nfrom glm_programs import {ENTRY_POINTS[name]} as main; main()"
    return start_python(code, *arguments)


def start_python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Start Python with the import path of this one."""
    return start([sys.executable, "-c", code, *map(str, arguments)])


def start(command: Sequence[str]) -> subprocess.Popen[str]:
    """Start any command with our import path and two pipes."""
    return subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_command(name: str, *arguments: object, before: str = "") -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command that was run to its end."""
    return finish(start_command(name, *arguments, before=before))


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr, once the process has ended."""
    watch = ProgressWatch(process.pid)
    while True:
        try:
            out, err = process.communicate(timeout=1)
        except subprocess.TimeoutExpired:
            watch.check()
        else:
            return process.returncode, out, err


def wait(process: subprocess.Popen[Any]) -> int:
    """The exit code, once the process has ended; its pipes and terminals stay open."""
    if process.poll() is not None:
        return process.returncode
    watch = ProgressWatch(process.pid)
    while process.poll() is None:
        watch.check()
        time.sleep(0.01)
    return process.returncode


class ProgressWatch:
    """Fails a wait for a process that does nothing any more, or computes without end."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._used_seconds = 0.0
        self._moved = time.monotonic()

    def check(self) -> None:
        """Look at the processor time of the process and its children.

        Raises:
            TimeoutError: none was used for two minutes, or far too much in all.
        """
        used = self._measure()
        if used != self._used_seconds:
            self._used_seconds, self._moved = used, time.monotonic()
        idle = time.monotonic() - self._moved
        if idle > _IDLE_SECONDS or used > _PROCESSOR_SECONDS:
            raise TimeoutError(f"{self._process}: {used:.0f} s computed, idle for {idle:.0f} s")

    def _measure(self) -> float:
        try:
            family = [self._process, *self._process.children(recursive=True)]
            times = [process.cpu_times() for process in family]
        except psutil.NoSuchProcess:  # one has just ended
            return self._used_seconds
        own = times[0].children_user + times[0].children_system
        return float(own + sum(time.user + time.system for time in times))


def wait_for_sibling(process: subprocess.Popen[str], output: Path) -> Path:
    """The hidden folder in which a running export collects its files, once it is there."""

    watch = ProgressWatch(process.pid)
    while True:
        assert process.poll() is None, process.communicate()
        for found in output.parent.glob(f".{output.name}.partial-*"):
            return found
        watch.check()
        time.sleep(0.01)


def stop(process: subprocess.Popen[str]) -> None:
    """Halt a process where it is; it goes on when it is sent SIGCONT, and can be killed."""
    process.send_signal(signal.SIGSTOP)
