"""A terminal with a program in it; under Wine that is a Windows console."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from typing import Self

_PATIENCE_SECONDS = 600.0  # for a busy machine
_CONTROL = re.compile(r"\x1b\[\??[0-9;]*[A-Za-z]|\s")
_SIZE = struct.pack("HHHH", 40, 120, 0, 0)  # rows and columns


class Console:
    """What is shown is kept without cursor moves and spaces, which Wine draws its own way."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, _SIZE)
        # Keys that come before the program reads must not be shown or changed; Ctrl-C is one still.
        settings = termios.tcgetattr(slave)
        settings[0] &= ~termios.ICRNL
        settings[3] &= ~(termios.ECHO | termios.ICANON)
        termios.tcsetattr(slave, termios.TCSANOW, settings)
        self._process = subprocess.Popen(
            command,
            env={**environment, "TERM": "xterm"},
            preexec_fn=lambda: os.login_tty(slave),  # noqa: PLW1509 - no other thread runs here
            pass_fds=(slave,),
        )
        os.close(slave)
        self._bytes, self._seen = b"", 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._master)

    def type(self, text: str) -> None:
        """Press these keys; "\\r" is Enter, "\\x03" Ctrl-C."""
        os.write(self._master, text.encode())

    def wait_for(self, text: str) -> None:
        """Read until the text is shown, behind what was waited for before."""
        end = time.monotonic() + _PATIENCE_SECONDS
        while text not in self._shown()[self._seen :]:
            assert time.monotonic() < end, (text, self._shown()[-500:])
            self._read()
        self._seen += self._shown()[self._seen :].index(text) + len(text)

    def wait(self) -> int:
        """The exit code."""
        end = time.monotonic() + _PATIENCE_SECONDS
        while self._process.poll() is None:
            assert time.monotonic() < end, self._shown()[-500:]
            self._read()
        self._read()
        return self._process.returncode

    def _shown(self) -> str:
        return _CONTROL.sub("", self._bytes.decode("utf-8", "replace"))

    def _read(self) -> None:
        if not select.select([self._master], [], [], 0.05)[0]:
            return
        try:
            self._bytes += os.read(self._master, 1 << 16)
        except OSError:  # Linux's way to say that the program has gone
            time.sleep(0.01)
