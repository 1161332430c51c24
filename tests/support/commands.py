"""The commands as a shell starts them: own process, own signals, exit codes, two streams."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

# Shells that run tests in the background leave Ctrl-C ignored, and Python then keeps it so.
_START = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
_MODULES = {
    "glm-export": "glm_export.cli",
    "glm-eval": "glm_export.evaluate_cli",
    "glm-run": "glm_runtime.cli",
}
_PATIENCE_SECONDS = 120.0


def start_command(name: str, *arguments: object, before: str = "") -> subprocess.Popen[str]:
    """Start one of our commands through its entry point.

    Args:
        name: the command.
        arguments: its arguments.
        before: Python statements to run first.
    """
    code = f"{_START}{before}\nfrom {_MODULES[name]} import main; main()"
    return start_python(code, *arguments)


def start_python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Start Python with the import path of this one."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_command(name: str, *arguments: object, before: str = "") -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command that was run to its end."""
    return finish(start_command(name, *arguments, before=before))


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    out, err = process.communicate(timeout=_PATIENCE_SECONDS)
    return process.returncode, out, err


def wait_for_sibling(process: subprocess.Popen[str], output: Path) -> Path:
    """The hidden folder in which a running export collects its files, once it is there."""

    def find() -> Path | None:
        assert process.poll() is None, process.communicate()
        return next(output.parent.glob(f".{output.name}.partial-*"), None)

    return _wait(find)


def stop(process: subprocess.Popen[str]) -> None:
    """Halt a process where it is; it goes on when it is sent SIGCONT, and can be killed."""
    process.send_signal(signal.SIGSTOP)


def _wait(find: Callable[[], Path | None]) -> Path:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        found = find()
        if found is not None:
            return found
        time.sleep(0.01)
    raise TimeoutError
