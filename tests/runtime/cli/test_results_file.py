"""The file of answers: whatever fails or is killed, no answer is lost; it belongs to one run."""

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest

from glm_runtime.cli import prompts_file
from glm_runtime.cli.prompts_file import ResultsFile
from runtime.cli.many_prompts import (
    QUESTIONS,
    SHORT,
    read_lines,
    run,
    write_lines,
)
from support.commands import start_command


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


def test_a_rerun_answers_only_what_is_missing(tiny_folder: Path, prompts: Path, tmp_path: Path):
    """Three whole lines and half a fourth, as a kill leaves them."""
    output = tmp_path / "out.jsonl"
    arguments = ("--prompts", str(prompts), "--output", str(output), *SHORT)
    run(tiny_folder, *arguments)
    whole = output.read_bytes()
    lines = whole.splitlines(keepends=True)
    output.write_bytes(b"".join(lines[:3]) + lines[3][:20])
    result = run(tiny_folder, *arguments)
    assert result.exit_code == 0
    assert "3 of 7 are answered already" in result.stderr
    assert "4 answers" in result.stderr
    assert output.read_bytes() == whole
    result = run(tiny_folder, *arguments)
    assert "7 of 7 are answered already" in result.stderr and output.read_bytes() == whole


def test_answers_that_waited_for_an_earlier_one_are_kept(tiny_folder: Path, tmp_path: Path):
    """The first answer is long; the others are finished when the process is killed."""
    lines: list[dict] = [{"prompt": "白日" * 20}, *({"prompt": f"{i} a"} for i in range(9))]
    path, output = write_lines(tmp_path / "in.jsonl", lines), tmp_path / "out.jsonl"
    arguments = ("--prompts", str(path), "--output", str(output), *SHORT)
    run(tiny_folder, *arguments)
    whole = output.read_bytes()
    done = whole.splitlines(keepends=True)
    waiting = tmp_path / "out.jsonl.waiting"
    assert not waiting.exists()
    output.write_bytes(b"")
    waiting.write_bytes(b"".join(done[3:7]) + done[8][:10])
    result = run(tiny_folder, *arguments)
    assert "4 of 10 are answered already" in result.stderr and "6 answers" in result.stderr
    assert output.read_bytes() == whole
    assert not waiting.exists()


def test_answers_that_wait_are_written_at_once(tmp_path: Path):
    results = ResultsFile(tmp_path / "out.jsonl", ["a", "b", "c", "d"])
    for index in (2, 1):
        results.add(index, {"index": index, "key": "abcd"[index]})
    assert (tmp_path / "out.jsonl").read_bytes() == b""
    del results  # as when it is killed; Windows deletes no file that is open
    again = ResultsFile(tmp_path / "out.jsonl", ["a", "b", "c", "d"])
    assert [again.has(index) for index in range(4)] == [False, True, True, False]
    for index in (0, 3):
        again.add(index, {"index": index, "key": "abcd"[index]})
    again.close()
    assert [one["index"] for one in read_lines(tmp_path / "out.jsonl")] == [0, 1, 2, 3]
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


def test_a_kill_at_the_start_loses_no_answer_that_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A start writes the waiting answers again; it used to empty their file first."""
    keys = ["a", "b", "c"]
    results = ResultsFile(tmp_path / "out.jsonl", keys)
    for index in (2, 1):
        results.add(index, {"index": index, "key": keys[index]})
    del results
    with monkeypatch.context() as killed:
        killed.delattr(prompts_file, "_write")  # where it is killed
        with pytest.raises(NameError):
            ResultsFile(tmp_path / "out.jsonl", keys)
    again = ResultsFile(tmp_path / "out.jsonl", keys)
    assert [again.has(index) for index in range(3)] == [False, True, True]
    again.add(0, {"index": 0, "key": "a"})
    again.close()
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


@pytest.mark.parametrize("content", ['{"index": 1, "key": "x"}', '{"index": -1}', "[]", "{", "3"])
def test_a_waiting_file_of_something_else_is_not_believed(tmp_path: Path, content: str):
    (tmp_path / "out.jsonl.waiting").write_text(content + "\n")
    results = ResultsFile(tmp_path / "out.jsonl", ["a", "b"])
    assert [results.has(index) for index in range(2)] == [False, False]


def test_answers_to_something_else_are_not_touched(
    tiny_folder: Path, prompts: Path, tmp_path: Path
):
    output = tmp_path / "out.jsonl"
    arguments = ("--prompts", str(prompts), "--output", str(output))
    run(tiny_folder, *arguments, *SHORT)
    before = output.read_bytes()
    for other in (
        ("--greedy", "--max-new-tokens", "8"),
        (*SHORT, "--raw"),
        (*SHORT, "--stop", "x"),
    ):
        result = run(tiny_folder, *arguments, *other)
        assert result.exit_code == 1
        assert "holds answers for other prompts, settings or another model" in result.stderr
        assert output.read_bytes() == before


@pytest.mark.parametrize("content", ["my only copy of a note", "a\nb", '{"index": 1}\n', "{}"])
def test_a_file_of_something_else_is_not_touched(
    tiny_folder: Path, prompts: Path, tmp_path: Path, content: str
):
    """Without a newline at its end it was taken for half a line of ours, and cut to nothing."""
    note = tmp_path / "note.txt"
    note.write_text(content)
    result = run(tiny_folder, "--prompts", str(prompts), "--output", str(note), *SHORT)
    assert result.exit_code == 1
    assert "content; choose another file, or delete it" in result.stderr
    assert note.read_text() == content


def test_the_file_of_prompts_is_not_written_over(tiny_folder: Path, prompts: Path):
    before = prompts.read_bytes()
    result = run(tiny_folder, "--prompts", str(prompts), "--output", str(prompts), *SHORT)
    assert result.exit_code == 2
    assert "--output is the file of --prompts" in result.stderr
    assert prompts.read_bytes() == before


def test_a_rerun_still_says_what_failed(tiny_folder: Path, tmp_path: Path):
    lines = [{"prompt": "a"}, {"prompt": "0" * 500}]
    path, output = write_lines(tmp_path / "in.jsonl", lines), tmp_path / "out.jsonl"
    for _ in range(2):
        result = run(tiny_folder, "--prompts", str(path), "--output", str(output), *SHORT)
        assert result.exit_code == 1
        assert "Error: 1 of 2 prompts failed" in result.stderr


def test_a_kill_loses_nothing_that_was_written(tiny_folder: Path, tmp_path: Path):
    """A real process, killed as soon as some answers are there; the rerun completes the file."""
    lines = [{"prompt": f"{number} {QUESTIONS[number % 7]}"} for number in range(300)]
    path, output = write_lines(tmp_path / "in.jsonl", lines), tmp_path / "out.jsonl"
    arguments = ["generate", str(tiny_folder), "--prompts", str(path), "--output", str(output)]
    arguments += ["--greedy", "--ignore-eos", "--max-new-tokens", "60", "--threads", "1"]
    process = start_command("glm-run", *arguments)
    while process.poll() is None and not (output.exists() and output.stat().st_size > 4000):
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    before = output.read_bytes()
    before = before[: before.rfind(b"\n") + 1]
    assert 0 < before.count(b"\n") < 300
    again = start_command("glm-run", *arguments)
    again.communicate()
    assert again.returncode == 0
    after = output.read_bytes()
    assert after.startswith(before)
    assert [one["index"] for one in read_lines(output)] == list(range(300))
