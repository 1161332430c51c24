"""`glm-run chat --tools` with MCP servers, end to end on the sample model."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from support.commands import start
from support.refusals import assert_sentence
from support.terminals import Terminal, open_terminal

SERVERS = Path(__file__).parents[1] / "support" / "mcp_servers.py"
PROGRAM = (sys.executable, "-m", "glm_runtime")
VERSE = "He hath shewed thee, O man, what is good"
QUESTION = "Look up Micah 6:8."
CALL = 'get_verse({"reference": "Micah 6:8"})'
PERMISSION = "[n]o: "
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
OPTIONS = ("--greedy", "--max-new-tokens", "100", "--threads", "1", "--no-huge-pages")


def configure(folder: Path, **servers: object) -> Path:
    path = folder / "agent.json"
    path.write_text(json.dumps({"mcpServers": servers}), encoding="utf-8")
    return path


def stdio(name: str) -> dict[str, object]:
    return {"command": sys.executable, "args": [str(SERVERS), name]}


def chat(folder: Path, tools: Path, typed: str, *options: str) -> tuple[int, str, str]:
    command = [*PROGRAM, "chat", str(folder), "--tools", str(tools), *OPTIONS, *options]
    done = subprocess.run(
        command, input=typed, capture_output=True, text=True, env=ENVIRONMENT, check=False
    )
    return done.returncode, done.stdout, done.stderr


def test_question_call_result_answer(sample_folder: Path, tmp_path: Path) -> None:
    tools = configure(tmp_path, bible=stdio("bible"))
    typed = f"{QUESTION}\n/reset\n查一下李白的《静夜思》。\n"
    code, answers, log = chat(sample_folder, tools, typed, "--yes")
    assert code == 0, log
    assert VERSE in answers and "床前明月光" in answers
    assert "get_verse\n" not in answers  # calls are no part of the answer
    assert f"{CALL}\n-> {VERSE}.\n" in log
    assert 'get_poem({"title": "静夜思", "author": "李白"})\n-> 床前明月光，' in log
    assert "tools: get_verse, get_poem\n" in log


def test_over_http(sample_folder: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = start([sys.executable, str(SERVERS), "bible", str(port)])
    try:
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert server.poll() is None
            time.sleep(0.05)
        tools = configure(tmp_path, bible={"url": f"http://127.0.0.1:{port}/mcp"})
        code, answers, log = chat(sample_folder, tools, f"{QUESTION}\n", "--yes")
    finally:
        server.kill()
        server.communicate()
    assert code == 0, log
    assert VERSE in answers and f"-> {VERSE}." in log


def test_a_tool_that_fails_is_no_crash(sample_folder: Path, tmp_path: Path) -> None:
    tools = configure(tmp_path, bible=stdio("bible"), absent={"command": "no-such-program"})
    code, answers, log = chat(sample_folder, tools, "Look up John 3:16.\n", "--yes")
    assert code == 0, log
    assert answers.strip()
    assert "warning: the MCP server absent cannot be used (there is no program" in log
    assert "-> Error executing tool get_verse" in log


def test_the_limit_of_turns(sample_folder: Path, tmp_path: Path) -> None:
    """The sample model calls the tool a second time, because it finds nothing."""
    tools = configure(tmp_path, empty=stdio("empty"))
    typed = f"{QUESTION}\n/reset\n" * 2
    code, _, log = chat(sample_folder, tools, typed, "--yes", "--max-turns", "1")
    assert code == 0, log
    # Each question has turns of its own.
    assert log.count("-> none\n") == log.count("(the limit of 1 turns is reached.)") == 2


@pytest.mark.parametrize(
    ("options", "content", "words"),
    [
        ([], '{"mcpServers": {"a": {"command": "x"}}}', ["stdin is no terminal", "--yes"]),
        (["--yes"], "[]", ["--yes has no effect", "mcpServers"]),
        (["--max-turns", "3"], "[]", ["--max-turns has no effect"]),
    ],
)
def test_wrong_usage_is_told_before_the_model_loads(
    options: Sequence[str], content: str, words: Sequence[str], sample_folder: Path, tmp_path: Path
) -> None:
    tools = tmp_path / "agent.json"
    tools.write_text(content)
    code, answers, log = chat(sample_folder, tools, "Hello\n", *options)
    assert (code, answers) == (2, "")
    assert_sentence(log.splitlines()[-1].removeprefix("Error: "), *words)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"mcpServers": {}}', ["agent.json names no server"]),
        ('{"mcpServers": {"a": {"comand": "x"}}}', ["agent.json: mcpServers.a has neither"]),
        ('{"mcpServers": ', ["agent.json is not JSON"]),
        ('{"python": {}}', ["mcpServers is missing"]),
    ],
)
def test_a_wrong_configuration_is_one_sentence(
    content: str, words: Sequence[str], sample_folder: Path, tmp_path: Path
) -> None:
    tools = tmp_path / "agent.json"
    tools.write_text(content)
    code, answers, log = chat(sample_folder, tools, "Hello\n", "--yes")
    assert (code, answers) == (1, "")
    assert_sentence(log.strip().removeprefix("Error: "), *words)


def test_other_commands_start_no_servers(sample_folder: Path, tmp_path: Path) -> None:
    tools = configure(tmp_path, bible=stdio("bible"))
    command = [*PROGRAM, "generate", str(sample_folder), "--tools", str(tools), "--prompt", "a"]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 1
    assert "configures MCP servers" in done.stderr and "glm-run chat" in done.stderr


def test_without_the_sdk_the_sentence_says_what_to_install(
    sample_folder: Path, tmp_path: Path
) -> None:
    tools = configure(tmp_path, bible=stdio("bible"))
    code = "import sys; sys.modules['mcp'] = None; from glm_programs import run_runtime as main"
    arguments = ["chat", str(sample_folder), "--tools", str(tools), "--yes"]
    command = [sys.executable, "-c", f"{code}; main()", *arguments]
    done = subprocess.run(
        command, input="", capture_output=True, text=True, env=ENVIRONMENT, check=False
    )
    assert done.returncode == 1
    assert_sentence(done.stderr.strip().removeprefix("Error: "), "pip install mcp")


def converse(folder: Path, tools: Path) -> list[str]:
    return [*PROGRAM, "chat", str(folder), "--tools", str(tools), *OPTIONS]


on_posix = pytest.mark.skipif(os.name == "nt", reason="terminals of POSIX")


@on_posix
def test_permission_is_asked_for(sample_folder: Path, tmp_path: Path) -> None:
    tools = configure(tmp_path, bible=stdio("bible"))
    with open_terminal(converse(sample_folder, tools)) as terminal:
        terminal.read_until("stops an answer.\r\n> ")
        assert ask(terminal, PERMISSION).count(CALL) == 1
        refused = ask(terminal, "\r\n> ", "n\n")
        assert "-> Error: the user does not allow this call." in refused
        ask(terminal, PERMISSION)
        assert "does not allow" in ask(terminal, "\r\n> ", "\n")  # Enter is a no
        ask(terminal, PERMISSION)
        assert f"-> {VERSE}" in ask(terminal, "\r\n> ", "y\n")
        ask(terminal, PERMISSION)
        ask(terminal, "\r\n> ", "a\n")
        assert PERMISSION not in ask(terminal, "\r\n> ")  # always


@on_posix
def test_ctrl_c_ends_the_running_call(sample_folder: Path, tmp_path: Path) -> None:
    """And the question about a call; the conversation goes on."""
    tools = configure(tmp_path, slow=stdio("slow"))
    with open_terminal(converse(sample_folder, tools)) as terminal:
        terminal.read_until("stops an answer.\r\n> ")
        ask(terminal, PERMISSION)
        terminal.read_until("(stopped)", keys="\x03")
        ask(terminal, PERMISSION)
        terminal.press("y\n")
        time.sleep(1)  # so that the call runs
        terminal.read_until("(stopped)", keys="\x03")
        terminal.press(f"/save {tmp_path / 'saved.json'}\n")
        terminal.read_until("The conversation is in")
        children = psutil.Process(terminal.process.pid).children(recursive=True)
        terminal.press("/exit\n")
        terminal.process.wait(60)
    messages = json.loads((tmp_path / "saved.json").read_text())
    assert [one["role"] for one in messages] == ["user", "assistant", "tool"]
    assert messages[-1]["content"] == "Error: the user stopped this call."
    assert messages[-1]["tool_call_id"] == messages[-2]["tool_calls"][0]["id"]
    assert psutil.wait_procs(children, 30)[1] == []


@on_posix
def test_a_signal_ends_a_program_without_a_terminal(sample_folder: Path, tmp_path: Path) -> None:
    tools = configure(tmp_path, slow=stdio("slow"))
    process = subprocess.Popen(
        [*converse(sample_folder, tools), "--yes"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    assert process.stdin is not None and process.stderr is not None
    process.stdin.write(f"{QUESTION}\n")
    process.stdin.flush()
    while CALL not in process.stderr.readline():
        assert process.poll() is None
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, log = process.communicate(timeout=120)
    assert process.returncode == 130, log
    assert "Traceback" not in log


def ask(terminal: Terminal, expected: str, typed: str = f"/reset\n{QUESTION}\n") -> str:
    """The answer; the sample model calls its tools in the first turn of a conversation."""
    terminal.press(typed)
    return terminal.read_until(expected)
