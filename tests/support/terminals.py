"""A program in a terminal of its own (POSIX): what it shows, and keys that are pressed."""

import os
import select
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from support.commands import ProgressWatch


class Terminal:
    """A terminal and the program in it.

    Attributes:
        process: the program.
    """

    def __init__(self, process: subprocess.Popen[bytes], controller: int) -> None:
        self.process = process
        self._controller = controller
        self._watch = ProgressWatch(process.pid)

    def press(self, keys: str) -> None:
        """Press keys; `\\x03` is Ctrl-C, `\\x04` is Ctrl-D."""
        os.write(self._controller, keys.encode())

    def read_until(self, expected: str, keys: str = "") -> str:
        """Return what is shown until something appears; press the keys again until it does.

        A signal just between Python's prompt and its wait for input is seen at the next key only.
        """
        content = b""
        while expected.encode() not in content:
            self._watch.check()
            self.press(keys)
            while select.select([self._controller], [], [], 0.5)[0]:
                content += os.read(self._controller, 1024)  # OSError if the program has ended
        return content.decode("utf-8", "replace")


@contextmanager
def open_terminal(command: Sequence[str]) -> Iterator[Terminal]:
    """Start a program in a new terminal; it is killed if it still runs at the end."""
    import pty  # noqa: PLC0415  # POSIX only

    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        preexec_fn=_own_terminal,  # noqa: PLW1509  # no other thread runs here
    )
    os.close(terminal)
    try:
        yield Terminal(process, controller)
    finally:
        process.kill()
        process.wait()
        os.close(controller)


def _own_terminal() -> None:
    """Make the terminal on stdin the controlling one, so that Ctrl-C becomes SIGINT."""
    import fcntl  # noqa: PLC0415  # POSIX only
    import termios  # noqa: PLC0415  # POSIX only

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
