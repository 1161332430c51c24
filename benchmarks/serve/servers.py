"""The servers that are compared: processes with an address, and their memory.

Both get as many threads and as many rows, and room for all prompts in their caches.
"""

import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.processes import ChildError, child_environment

OURS, THEIRS = "glm-run serve", "llama-server"
ROWS = 8
CONTEXT_TOKENS = 16_384
_CONTEXT_GB = 2  # more than these tokens take in float32 on the 1.5 B shape
_START_SECONDS = 600.0
_TAIL_CHARACTERS = 2000


@dataclass
class Server:
    """A server that takes requests.

    Attributes:
        name: its name in the tables.
        host: its address.
        port: its port.
        process: its process.
        peak_pss_bytes: the largest proportional memory that `note_memory` saw.
        peak_rss_bytes: the kernel's maximum of its resident memory.
    """

    name: str
    host: str
    port: int
    process: subprocess.Popen[str] = field(repr=False)
    peak_pss_bytes: int = 0
    peak_rss_bytes: int = 0

    def note_memory(self) -> None:
        """Look at its memory now. Linux only; elsewhere both figures stay 0."""
        folder = Path(f"/proc/{self.process.pid}")
        if not folder.is_dir():
            return
        pss = _read_kilobytes(folder / "smaps_rollup", "Pss:")
        self.peak_pss_bytes = max(self.peak_pss_bytes, pss)
        self.peak_rss_bytes = _read_kilobytes(folder / "status", "VmHWM:")


@contextmanager
def start_ours(folder: Path, threads: int) -> Iterator[Server]:
    """Run `glm-run serve` while the block runs.

    Raises:
        ChildError: it did not start.
    """
    options = ["--port", "0", "--threads", str(threads), "--parallel", str(ROWS)]
    options += ["--context-memory", str(_CONTEXT_GB), "--quiet"]
    command = [sys.executable, "-m", "glm_runtime", "serve", f"model={folder}", *options]
    with _run(command) as (process, errors):
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        if not url:
            raise ChildError(f"{OURS} did not start: {_read_tail(errors)}")
        yield Server(OURS, "127.0.0.1", int(url.rpartition(":")[2]), process)


@contextmanager
def start_llama(program: Path, gguf: Path, threads: int) -> Iterator[Server]:
    """Run llama.cpp's server while the block runs, with the flags that suit it best.

    Continuous batching and the cache of prompts are its defaults. All rows share one cache of keys
    and values, since a share of an eighth for each would be too short for the long prompt.

    Raises:
        ChildError: it did not start.
    """
    port = _find_port()
    options = ["--host", "127.0.0.1", "--port", str(port), "--threads", str(threads)]
    options += ["--threads-batch", str(threads), "--parallel", str(ROWS), "--kv-unified"]
    options += ["--ctx-size", str(CONTEXT_TOKENS), "--cache-reuse", "256", "--flash-attn", "auto"]
    with _run([str(program), "--model", str(gguf), *options]) as (process, errors):
        deadline = time.monotonic() + _START_SECONDS
        while not _is_ready(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise ChildError(f"{THEIRS} did not start: {_read_tail(errors)}")
            time.sleep(0.1)
        yield Server(THEIRS, "127.0.0.1", port, process)


@contextmanager
def _run(command: Sequence[str]) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Run a command while the block runs; give the process and the file with its error output."""
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "errors.txt"
        with path.open("w", encoding="utf-8") as errors:
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, text=True, env=child_environment()
            )
            try:
                yield process, path
            finally:
                process.terminate()
                process.wait()


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=10) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _find_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _read_tail(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")[-_TAIL_CHARACTERS:].strip()


def _read_kilobytes(path: Path, name: str) -> int:
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith(name):
            return 1024 * int(line.split()[1])
    return 0
