"""The program itself, as a process: help, signals, pipes, what it imports."""

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from glm_runtime.cli import cli
from support.commands import wait
from support.terminals import open_terminal

COMMANDS = sorted(cli.commands)
SOURCE_ROOT = Path(__file__).parents[3] / "runtime"
ENVIRONMENT = os.environ | {"PYTHONPATH": str(SOURCE_ROOT), "PYTHONIOENCODING": "utf-8"}
PROGRAM = (sys.executable, "-m", "glm_runtime")
on_posix = pytest.mark.skipif(os.name == "nt", reason="signals and pipes of POSIX")


def run(*arguments: object, code: str | None = None) -> subprocess.CompletedProcess:
    command = PROGRAM if code is None else (sys.executable, "-c", code)
    return subprocess.run(
        [*command, *map(str, arguments)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )


def examples_of(command: click.Command) -> list[str]:
    lines = [line.strip() for line in (command.epilog or "").splitlines()]
    return [line for line in lines if "glm-run " in line]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_three_examples_that_the_command_accepts(name: str):
    command = cli.commands[name]
    examples = examples_of(command)
    assert len(examples) == 3
    for example in examples:
        written = example[example.index("glm-run ") :].split(" | ")[0].split(" < ")[0]
        program, named, *arguments = shlex.split(written)
        assert (program, named) == ("glm-run", name)
        command.make_context(name, arguments)  # raises UsageError on a wrong option
    shown = CliRunner().invoke(cli, [name, "--help"]).stdout
    assert all(example in shown for example in examples)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_a_line_of_help_that_stands_alone(name: str):
    options = [one for one in cli.commands[name].params if isinstance(one, click.Option)]
    for option in options:
        words = re.sub(r"  \[.*\]$", "", option.help or "")
        assert re.fullmatch(r"[A-Z].* .*\.", words), (option.opts, option.help)


def test_the_programs_help_shows_three_examples_of_its_commands():
    examples = examples_of(cli)
    assert len(examples) == 3
    assert {shlex.split(example)[1] for example in examples} <= set(COMMANDS)


def test_an_unknown_command_is_wrong_usage():
    result = run("sing")
    assert result.returncode == 2
    assert "No such command 'sing'" in result.stderr


def test_an_answer_needs_no_torch_and_no_transformers(tiny_folder: Path):
    code = """
import sys
from glm_runtime.cli import cli
cli(sys.argv[1:], standalone_mode=False)
print(sorted({"torch", "transformers", "onnx"} & set(sys.modules)), file=sys.stderr)
"""
    arguments = ("generate", tiny_folder, "--prompt", "床前", "--max-new-tokens", 3)
    result = run(*arguments, code=code)
    assert result.returncode == 0, result.stderr
    assert result.stderr.splitlines()[-1] == "[]"


def test_help_does_not_import_onnxruntime():
    code = """
import sys
sys.modules["onnxruntime"] = None
from glm_runtime.cli import cli
cli(["generate", "--help"])
"""
    assert run(code=code).returncode == 0


WRONG_FOLDERS = {
    "bench": ("DIR",),
    "chat": ("DIR",),
    "doctor": ("DIR",),
    "generate": ("DIR", "--prompt", "a"),
    "info": ("DIR",),
    "prepare": ("DIR",),
    "generate with a draft": ("FOLDER", "--prompt", "a", "--draft", "DIR"),
}


@pytest.mark.parametrize("name", WRONG_FOLDERS)
def test_a_wrong_folder_is_refused_before_onnxruntime_is_imported(
    name: str, tiny_folder: Path, tmp_path: Path
):
    code = """
import sys
from glm_runtime.cli import cli
try:
    cli(sys.argv[1:])
finally:
    print("onnxruntime" in sys.modules)
"""
    folders = {"DIR": str(tmp_path / "nowhere"), "FOLDER": str(tiny_folder)}
    arguments = [folders.get(word, word) for word in WRONG_FOLDERS[name]]
    result = run(name.split(maxsplit=1)[0], *arguments, code=code)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.endswith("nowhere is not a folder; give the folder that glm-export wrote.")
    assert result.stdout == "False\n"


def test_a_missing_onnxruntime_is_one_sentence(tiny_folder: Path):
    code = """
import sys
sys.modules["onnxruntime"] = None
from glm_runtime.cli import main
main()
"""
    result = run("generate", tiny_folder, "--prompt", "a", code=code)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: onnxruntime cannot be imported")
    assert "pip install onnxruntime" in line


@on_posix
def test_a_closed_pipe_ends_the_program_quietly(tiny_folder: Path):
    """`glm-run generate ... | head -1`; here the reader has gone before the first word."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [*PROGRAM, "generate", str(tiny_folder), "--prompt", "床前", "--threads", "1"]
    with os.fdopen(write_end, "wb") as stdout:
        result = subprocess.run(
            command, env=ENVIRONMENT, stdout=stdout, stderr=subprocess.PIPE, check=False
        )
    assert result.stderr.decode() == "running on CPU (1 thread)\n"
    assert result.returncode == 1


@on_posix
def test_ctrl_c_exits_with_130(tiny_folder: Path):
    with subprocess.Popen(
        # One token, always the same: an answer of two lines would be interrupted, not the program.
        [*PROGRAM, "chat", str(tiny_folder), "--threads", "1", "--greedy", "--max-new-tokens", "1"],
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stderr.readline() == "running on CPU (1 thread)\n"
        process.stdin.write("a\n")
        process.stdin.flush()
        process.stdout.readline()  # the answer: now it waits for the next line
        process.send_signal(signal.SIGINT)
        assert wait(process) == 130
        assert "Traceback" not in process.stderr.read()


@on_posix
def test_in_a_terminal_ctrl_c_at_the_prompt_goes_on_and_ctrl_d_ends(tiny_folder: Path):
    with open_terminal([*PROGRAM, "chat", str(tiny_folder), "--threads", "1"]) as terminal:
        terminal.read_until("> ")
        terminal.read_until("(Ctrl-D ends)\r\n> ", keys="\x03")
        terminal.press("\x04")
        assert wait(terminal.process) == 0
