"""The file of answers belongs to one run at a time."""

import contextlib
import os
from pathlib import Path

import pytest

from glm_runtime.cli.prompts_file import ResultsFile
from runtime.cli.test_generate_many import QUESTIONS, SHORT, read_lines, run, write_lines


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "in.jsonl", [{"prompt": text} for text in QUESTIONS])


def test_two_runs_do_not_write_to_one_file(tiny_folder: Path, prompts: Path, tmp_path: Path):
    """Two runs at once once wrote 120 answers to 60 prompts, and later runs refused the file."""
    output = tmp_path / "out.jsonl"
    arguments = ("--prompts", str(prompts), "--output", str(output), *SHORT)
    keys = ["a"] * len(QUESTIONS)
    with contextlib.closing(ResultsFile(output, keys)):
        refused = run(tiny_folder, *arguments)
    assert refused.exit_code == 1
    assert f"another process writes to {output} now; wait for it" in refused.stderr
    assert run(tiny_folder, *arguments).exit_code == 0
    assert len(read_lines(output)) == len(QUESTIONS)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_as_output_is_refused(tiny_folder: Path, prompts: Path, tmp_path: Path):
    """It once waited for a writer for ever."""
    output = tmp_path / "pipe"
    os.mkfifo(output)
    refused = run(tiny_folder, "--prompts", str(prompts), "--output", str(output), *SHORT)
    assert refused.exit_code == 1
    assert "pipe is not a regular file" in refused.stderr
