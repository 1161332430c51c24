"""The built-in tool `python` runs in a sandbox, or not at all."""

import contextlib
import os
import shutil
import socket
import sys
import uuid
from functools import cache, partial
from pathlib import Path

import anyio
import psutil
import pytest

from glm_agents.configuration import PythonTool
from glm_agents.errors import AgentError
from glm_agents.observation import Observation
from glm_agents.sandbox import Sandbox, open_sandbox
from support.refusals import assert_sentence

MEGABYTE = 1 << 20


@cache
def checked() -> Sandbox:
    """A sandbox that works; checking each one would take as long as the code of the tests."""
    return anyio.run(open_sandbox, PythonTool())


def run(code: str, **limits: float) -> Observation:
    """The result of code in a new sandbox."""
    values = {"seconds": 60, "memory_bytes": 512 * MEGABYTE, **limits}
    sandbox = Sandbox(PythonTool(**values), checked()._command)
    return anyio.run(sandbox.run, code, 600, 4000)


@pytest.fixture(scope="module", autouse=True)
def _works() -> None:
    if shutil.which("bwrap") is None:
        pytest.skip("bwrap is not installed")
    try:
        checked()
    except AgentError as error:
        pytest.skip(f"bubblewrap makes no sandbox here: {error}")


def test_output_and_the_last_value_are_shown() -> None:
    assert run("print('你好')\nx = 6\nx * 7") == Observation("你好\n42\n")
    assert run("x = 1").text == "[no output; print what you want to see]"


def test_packages_of_this_python_can_be_imported() -> None:
    assert run("import numpy\nprint(int(numpy.arange(5) @ numpy.arange(5)))").text == "30\n"


def test_an_error_is_an_observation_with_the_line() -> None:
    found = run("def f():\n    return 1 / 0\nf()")
    assert found.is_error
    assert found.text.startswith("Traceback")
    assert "line 2, in f\n    return 1 / 0" in found.text
    assert "sandbox_program" not in found.text
    assert "ZeroDivisionError" in found.text
    assert "SyntaxError" in run("def").text
    assert run("import sys; sys.exit(3)").text == "[the program ended with status 3]"
    assert "EOFError" in run("input()").text


def test_no_file_of_the_home_is_seen(tmp_path: Path) -> None:
    secret = Path.home() / f".glm-test-{uuid.uuid4().hex}"
    secret.write_text("secret")
    hidden = tmp_path / "secret.txt"
    hidden.write_text("secret")
    try:
        for path in (secret, hidden, "/etc/passwd", "/root/.bashrc", __file__):
            found = run(f"print(open({str(path)!r}).read())")
            assert found.is_error and "FileNotFoundError" in found.text, path
    finally:
        secret.unlink()


def test_the_environment_of_this_process_is_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLM_SECRET", "secret")
    assert "secret" not in run("import os; print(dict(os.environ))").text
    everywhere = (
        "import pathlib\n"
        "for path in pathlib.Path('/proc').glob('*/environ'):\n"
        "    print(path.read_bytes())"
    )
    assert "secret" not in run(everywhere).text


@pytest.mark.parametrize(
    "path", ["/x", "/usr/x", "/etc/x", "/dev/x", "/proc/sys/kernel/core_pattern", "/dev/shm/x"]
)
def test_nothing_can_be_written_but_the_temporary_folder(path: str) -> None:
    """Root may write /proc/sys, from which programs outside of the sandbox can be started."""
    found = run(f"open({path!r}, 'a')")
    assert found.is_error and "OSError: [Errno 30]" in found.text


def test_the_temporary_folder_is_new_each_time_and_limited() -> None:
    assert run("open('a', 'w').write('1'); import os; print(os.path.exists('a'))").text == "True\n"
    assert run("import os; print(os.path.exists('a'))").text == "False\n"
    assert "No space left" in run("open('a', 'wb').write(b'x' * (100 << 20))").text


def test_there_is_no_network() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        code = f"import socket; socket.create_connection(('127.0.0.1', {port}), 5)"
        found = run(code)
        assert found.is_error and "ConnectionRefusedError" in found.text
        listening.setblocking(False)
        with pytest.raises(BlockingIOError):
            listening.accept()
    interfaces = run("import socket; print([name for _, name in socket.if_nameindex()])").text
    assert interfaces == "['lo']\n"


def test_other_processes_are_not_seen() -> None:
    code = "import os; print(len([name for name in os.listdir('/proc') if name.isdigit()]))"
    assert int(run(code).text) <= 2
    assert "ProcessLookupError" in run(f"import os; os.kill({os.getpid()}, 0)").text


def test_no_other_namespace_can_be_made() -> None:
    assert run("import ctypes; ctypes.CDLL(None).unshare(0x10000000)").text == "-1\n"


def test_one_process_cannot_take_too_much_memory() -> None:
    assert "MemoryError" in run("b'x' * (3 << 30)").text


def test_many_processes_cannot_take_too_much_memory() -> None:
    code = (
        "import os, time\n"
        "for _ in range(8):\n"
        "    if not os.fork():\n"
        "        taken = b'x' * (200 << 20)\n"
        "        time.sleep(60)\n"
        "time.sleep(60)"
    )
    assert run(code) == Observation("Error: it used more than 512 MB and was ended.", True)


@pytest.mark.skipif(
    hasattr(os, "geteuid") and os.geteuid() == 0,
    reason="a fork bomb of root, whom the kernel does not limit, starves the other tests",
)
def test_a_fork_bomb_ends_and_leaves_nothing() -> None:
    code = "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass"
    found = run(code, seconds=10)
    assert found.is_error
    assert found.text.endswith("and was ended.")  # too many, too much memory, or too long
    assert count_sandboxes() == 0


def test_threads_are_limited() -> None:
    code = (
        "import threading, time\n"
        "for _ in range(300):\n"
        "    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
        "time.sleep(600)"
    )
    found = run(code, seconds=600, memory_bytes=8 << 30)
    assert found.is_error
    assert "more than 64 processes" in found.text or "can't start new thread" in found.text


def test_an_endless_loop_ends() -> None:
    found = run("print('before', flush=True)\nwhile True: pass", seconds=1)
    assert found == Observation("before\n\nError: it ran for 1 seconds and was ended.", True)
    assert count_sandboxes() == 0


def test_a_closed_output_does_not_end_the_time_limit() -> None:
    found = run("import os, time\nos.close(1); os.close(2)\ntime.sleep(600)", seconds=1)
    assert "it ran for 1 seconds" in found.text


def test_a_process_left_behind_ends_with_the_call() -> None:
    code = "import os, time\nif not os.fork():\n    time.sleep(600)"
    run(code, seconds=2)
    assert count_sandboxes() == 0


def test_endless_output_is_cut() -> None:
    found = run("while True: print('y' * 1000)")
    assert found.is_error
    assert found.text.endswith("Error: it wrote more than 1048576 bytes and was ended.")
    assert "[cut: these are the first 4000 of 1048576 characters]" in found.text
    assert len(found.text) < 4200


def test_cancelling_ends_the_code() -> None:
    async def cancel() -> None:
        sandbox = await open_sandbox(PythonTool(seconds=600))
        with anyio.move_on_after(1):
            await sandbox.run("while True: pass", 600, 100)

    anyio.run(cancel)
    assert count_sandboxes() == 0


def test_without_bubblewrap_nothing_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AgentError) as caught:
        anyio.run(open_sandbox, PythonTool())
    assert_sentence(str(caught.value), "bwrap", "not installed", "leave python out")


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'bwrap: No permissions to create new namespace' >&2; exit 1", "No permissions"),
        ("echo 'bwrap: Unknown option --disable-userns' >&2; exit 1", "--disable-userns"),
        ("exit 0", "no output"),
    ],
)
def test_a_bubblewrap_that_does_not_work_is_refused(
    script: str, reason: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As where user namespaces are off, or where it is too old."""
    program = tmp_path / "bwrap"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(AgentError) as caught:
        anyio.run(partial(open_sandbox, PythonTool()))
    assert_sentence(str(caught.value), reason, "allow user namespaces")


def test_a_python_beside_the_home_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "base_prefix", str(Path.home()))
    with pytest.raises(AgentError) as caught:
        anyio.run(open_sandbox, PythonTool())
    assert_sentence(str(caught.value), "home folder", "virtual environment")


def count_sandboxes() -> int:
    """Processes of bubblewrap and of code in it that this test process started."""
    found = 0
    for one in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it may end meanwhile
            is_ended = one.status() == psutil.STATUS_ZOMBIE
            is_ours = "Runs in the sandbox, alone" in " ".join(one.cmdline())
            found += is_ours and not is_ended
    return found
