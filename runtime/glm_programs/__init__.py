"""Entry points of `glm-export`, `glm-eval` and `glm-run`.

Importing a program takes up to half a second. Ctrl-C in that time ends the process with exit code
130, without a traceback. Afterwards the command itself says what it leaves behind. This package
imports nothing else, so that it is ready at once.
"""

import importlib
import os
import signal
import threading


def run_export() -> None:
    """Run `glm-export`."""
    _run("glm_export.cli")


def run_evaluation() -> None:
    """Run `glm-eval`."""
    _run("glm_export.evaluate_cli")


def run_runtime() -> None:
    """Run `glm-run`."""
    _run("glm_runtime.cli")


def _run(module: str) -> None:
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:  # nohup and shells' background jobs ignore it
        signal.signal(signal.SIGINT, _end)
    try:
        main = importlib.import_module(module).main
    except MemoryError:
        os.write(2, b"Error: the memory is used up; close other programs.\n")
        os._exit(1)
    signal.signal(signal.SIGINT, handler)
    main()


def _end(_signal: int, _frame: object) -> None:
    try:  # numpy's OpenBLAS sends SIGINT to its own process where it cannot start a thread
        threading.Thread(target=int).start()
    except RuntimeError:
        os.write(
            2, b"Error: no thread can be started; raise the limit of processes (`ulimit -u`).\n"
        )
        os._exit(1)
    os.write(2, b"\nInterrupted.\n")
    os._exit(130)  # 128 + SIGINT, as shells count
