"""Runs Python code in a sandbox made by bubblewrap (`bwrap`), and never without it.

The code has no network, sees only the system's programs and this Python's packages, read-only, and
an empty temporary folder that is gone afterwards. Time, memory, processes and output are limited.
`sandbox_program.py` is what runs inside.
"""

import contextlib
import dataclasses
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from importlib.resources import files
from pathlib import Path

import anyio
import psutil
from anyio.abc import ByteReceiveStream, Process

from glm_agents.configuration import PythonTool
from glm_agents.errors import AgentError
from glm_agents.observation import Observation
from glm_agents.texts import cut_text
from glm_runtime.errors import to_printable

_PROGRAM = "bwrap"
_CHECK_SECONDS = 30.0
_WATCH_SECONDS = 0.05
_MAX_AT_ONCE = 4  # a server may be asked for many at the same time
_TEMPORARY_BYTES = 64 << 20
_FOLDERS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache")
_ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    # A library with a thread for each processor would use up the processes of the sandbox.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}


class Sandbox:
    """Runs code, each time in a new sandbox; made by `open_sandbox`."""

    def __init__(self, tool: PythonTool, command: list[str]) -> None:
        self._tool = tool
        self._command = command
        self._places = anyio.Semaphore(_MAX_AT_ONCE)

    async def run(self, code: str, seconds: float, limit: int) -> Observation:
        """Run code; return what it wrote to stdout and stderr. Cancelling ends it.

        Args:
            code: the Python code.
            seconds: time for it, if the tool's own limit is not less.
            limit: largest number of characters to return.
        """
        seconds = min(seconds, self._tool.seconds)
        numbers = [str(self._tool.memory_bytes), str(self._tool.max_processes)]
        async with self._places, _start([*self._command, *numbers]) as process:
            output = _Output(self._tool.output_bytes)
            reason = await self._follow(process, code, output, seconds)
        text = cut_text(output.content.decode("utf-8", "replace"), limit)
        if reason is not None:
            return Observation(f"{text}\nError: {reason}.".lstrip("\n"), is_error=True)
        if process.returncode:
            status = f"[the program ended with status {process.returncode}]"
            return Observation(f"{text.rstrip()}\n{status}".lstrip("\n"), is_error=True)
        return Observation(text or "[no output; print what you want to see]")

    async def _follow(
        self, process: Process, code: str, output: "_Output", seconds: float
    ) -> str | None:
        """Give the code to the program and read its output; return why it was ended early."""
        assert process.stdin is not None and process.stdout is not None
        reasons: list[str] = []
        with anyio.move_on_after(seconds) as scope:
            async with anyio.create_task_group() as tasks:

                def end(reason: str) -> None:
                    reasons.append(reason)
                    tasks.cancel_scope.cancel()

                tasks.start_soon(self._watch, process.pid, end)
                tasks.start_soon(_write, process, code)
                if not await output.read(process.stdout):
                    end(f"it wrote more than {self._tool.output_bytes} bytes and was ended")
                else:
                    await process.wait()
                tasks.cancel_scope.cancel()
        if scope.cancelled_caught:
            reasons.append(f"it ran for {seconds:g} seconds and was ended")
        return reasons[0] if reasons else None

    async def _watch(self, pid: int, end: Callable[[str], None]) -> None:
        """End the program when all its processes together use too much.

        The kernel's own limits count each process alone, and do not count those of root.
        """
        while True:
            await anyio.sleep(_WATCH_SECONDS)
            num_processes, used_bytes = await anyio.to_thread.run_sync(_measure, pid)
            if used_bytes > self._tool.memory_bytes:
                end(f"it used more than {self._tool.memory_bytes >> 20} MB and was ended")
            if num_processes > self._tool.max_processes:
                end(f"it started more than {self._tool.max_processes} processes and was ended")


class _Output:
    """The output of a program, as far as it is allowed."""

    def __init__(self, limit: int) -> None:
        self.content = b""
        self._limit = limit

    async def read(self, stream: ByteReceiveStream) -> bool:
        """Read until the end; return whether the output is within its limit."""
        async for part in stream:
            self.content += part
            if len(self.content) > self._limit:
                self.content = self.content[: self._limit]
                return False
        return True


async def open_sandbox(tool: PythonTool) -> Sandbox:
    """Return a sandbox that works here.

    Raises:
        AgentError: bubblewrap is not installed, or cannot make a sandbox on this system.
    """
    program = shutil.which(_PROGRAM)
    if program is None:
        raise AgentError(
            f"the tool python needs bubblewrap ({_PROGRAM}), which is not installed; install it, "
            "or leave python out of the configuration."
        )
    command = [program, *_list_options(), "--", *_list_interpreter()]
    check = Sandbox(dataclasses.replace(tool, seconds=_CHECK_SECONDS), command)
    found = await check.run("print('works')", _CHECK_SECONDS, 4096)
    if found.text.strip() != "works":
        reason = to_printable(" ".join(found.text.split()))[:300]
        raise AgentError(
            f"the tool python cannot run in a sandbox here ({reason}); allow user namespaces and "
            "use bubblewrap 0.8 or later, or leave python out of the configuration."
        )
    return Sandbox(tool, command)


def _list_options() -> list[str]:
    """Return the options of bubblewrap; later mounts lie over earlier ones."""
    options = ["--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent"]
    options += ["--new-session", "--cap-drop", "ALL", "--hostname", "sandbox"]
    options += ["--proc", "/proc", "--dev", "/dev"]
    options += ["--size", str(_TEMPORARY_BYTES), "--tmpfs", "/tmp"]
    for folder in (*_FOLDERS, *_list_prefixes()):
        options += ["--ro-bind-try", folder, folder]
    # / and /dev have no limit of size, and root outside of the sandbox may write /proc/sys.
    for folder in ("/proc", "/dev", "/"):
        options += ["--remount-ro", folder]
    return [*options, "--chdir", "/tmp"]


def _list_prefixes() -> list[str]:
    """Return the folders of this Python outside of the system's.

    Raises:
        AgentError: one of them holds the user's files, too.
    """
    prefixes = sorted({Path(sys.base_prefix), Path(sys.prefix)})
    for prefix in prefixes:
        if Path.home().is_relative_to(prefix):
            raise AgentError(
                f"the tool python would show the home folder, because Python is installed in "
                f"{prefix}; use a virtual environment elsewhere."
            )
    return [str(prefix) for prefix in prefixes if not prefix.is_relative_to("/usr")]


def _list_interpreter() -> list[str]:
    code = files("glm_agents").joinpath("sandbox_program.py").read_text(encoding="utf-8")
    return [sys.executable, "-I", "-B", "-X", "utf8", "-u", "-c", code]


@contextlib.asynccontextmanager
async def _start(command: list[str]) -> AsyncIterator[Process]:
    """Start a program that is ended with all its processes, whatever happens."""
    # The environment is bubblewrap's own: --clearenv leaves the first process with ours, and the
    # code can read that in /proc.
    process = await anyio.open_process(
        command, stderr=subprocess.STDOUT, start_new_session=True, cwd="/", env=_ENVIRONMENT
    )
    try:
        yield process
    finally:
        with anyio.CancelScope(shield=True):
            if process.returncode is None:
                process.kill()  # of the first process of a namespace; the kernel ends the others
            await process.aclose()


async def _write(process: Process, code: str) -> None:
    assert process.stdin is not None
    with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
        await process.stdin.send(code.encode("utf-8", "replace"))
        await process.stdin.aclose()


def _measure(pid: int) -> tuple[int, int]:
    """Return the number of processes and threads below a process, and their memory in bytes."""
    num_processes = used_bytes = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                num_processes += process.num_threads()
                used_bytes += process.memory_info().rss
    return num_processes, used_bytes
